"""Shards train apart, leak nothing into each other, and are averaged; one shard without control is plain training."""

import json
import multiprocessing
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from ddpm_models import ddpm
from small_training import CONFIG, MASK, RATE, bits, full, plain_batches, run, sharded_bits, small_images, trained_bits

from memcontrol.cache import Cache
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.mitigations.ensembles import EnsembleTraining
from memcontrol.mitigations.iet_agc import PRESETS, IterativeEnsemble
from memcontrol.mitigations.loss_bank import AntiGradientControl
from memcontrol.mitigations.own_process import of_first
from memcontrol.mitigations.shards import Shard, ShardBatches
from memcontrol.mitigations.threshold_augmentation import ThresholdAugmentation
from memcontrol.pipeline import UnconditionalPipeline

STRICT = AntiGradientControl(0.3)
SMALL_PLUS = replace(PRESETS["iet-agc+-cifar"], shards=2, rounds=3)
ALL = np.arange(6)


@pytest.fixture(scope="module")
def small(cache_folder):
    """An unconditional pipeline on images of 16 pixels."""
    return UnconditionalPipeline(ddpm(), name="ddpm", device="cpu", cache=Cache(cache_folder))


def training(frozen, settings, *, repeats=None, data=None):
    images = small_images(size=frozen.resolution)
    return settings.training(frozen, images, plain_batches(frozen, repeats=repeats), data=data)


def steps(ensemble, parameters, config=CONFIG, *, accelerator=None, after=None):
    accelerator = accelerator or Accelerator(cpu=True)
    return ensemble.steps(parameters, learning_rate=RATE, config=config, accelerator=accelerator, after=after)


def fewer(count):
    return CONFIG.model_copy(update={"steps": count})


@pytest.mark.parametrize("rounds", [1, 3])
def test_one_shard_without_control_is_plain_training_bit_for_bit(small, rounds):
    plain = trained_bits(small, plain_batches(small, repeats=[1, 2, 1, 1, 3, 1]))
    ours = sharded_bits(small, training(small, IterativeEnsemble(1, rounds), repeats=[1, 2, 1, 1, 3, 1]))
    assert ours == plain


def test_one_shard_with_control_is_plain_training_under_that_rule(small):
    rule = STRICT.rule(timesteps=1000, images=6)
    ensemble = training(small, IterativeEnsemble(control=STRICT))
    assert sharded_bits(small, ensemble) == trained_bits(small, plain_batches(small), rule=rule)
    (bank,) = ensemble.record.banks
    assert np.array_equal(bank.means, rule.means)
    assert np.array_equal(ensemble.record.skips, rule.skips)


@pytest.mark.parametrize("control", [None, AntiGradientControl(0.5)])
def test_identical_shards_are_one_plain_training_bit_for_bit(small, control):
    """What leaked between shards (tensors, moments, averages, banks) would make the second differ from the first."""
    plain = plain_batches(small)
    banks = [None if control is None else control.rule(timesteps=1000, images=6) for _ in range(4)]
    shards = []
    for bank in banks[:3]:
        drawn = ShardBatches(plain, ALL, seed=plain.seed)
        shards.append(Shard(ALL, drawn, drawn, bank, bank))
    losses, own, average = sharded_bits(small, EnsembleTraining(small, shards, rounds=3), config=fewer(18))
    expected, plain_own, plain_average = trained_bits(small, plain, config=fewer(6), rule=banks[3])
    assert (own, average) == (plain_own, plain_average)
    assert losses == [*expected[0:2] * 3, *expected[2:4] * 3, *expected[4:6] * 3]


def test_a_round_ends_with_the_mean_weighted_by_the_shards_samples(small):
    """Against each shard trained by itself."""
    repeats = [1, 4, 1, 1, 1, 2]
    ensemble = training(small, IterativeEnsemble(2, 1), repeats=repeats)
    sizes = [shard.size for shard in ensemble.shards]
    assert sorted(sizes) != [5, 5]
    assert sum(sizes) == 10
    alone = [trained_bits(small, shard.drawn, config=fewer(3)) for shard in ensemble.shards]
    losses, own, average = sharded_bits(small, ensemble, config=fewer(6))
    assert losses == [*alone[0][0], *alone[1][0]]
    for got, kind in ((own, 1), (average, 2)):
        for name, content in got.items():
            first, second = (np.frombuffer(one[kind][name], np.float32).astype(np.float64) for one in alone)
            mean = (sizes[0] * first + sizes[1] * second) / 10
            np.testing.assert_allclose(np.frombuffer(content, np.float32), mean, rtol=1e-5, atol=1e-7)
            assert not np.array_equal(first, second)


def test_the_mean_is_in_place_at_the_last_step_of_each_round(small):
    ensemble = training(small, IterativeEnsemble(2, 2))
    with tuned(small.unet, full(MASK)) as tuning:
        for step in steps(ensemble, tuning.parameters, fewer(8)):
            shards = [[tensor.numpy().tobytes() for tensor in shard.copies] for shard in ensemble.shards]
            if step.number in (4, 8):
                assert shards[0] == shards[1]
                assert shards[0][: len(MASK)] == list(bits(tuning.parameters).values())
                with step.averaged():
                    assert shards[0][len(MASK) :] == list(bits(tuning.parameters).values())
            elif step.number > 2:
                assert shards[0] != shards[1]


def test_the_steps_are_divided_and_each_shard_has_its_own_schedule(small):
    ensemble = training(small, IterativeEnsemble(3, 2))
    with tuned(small.unet, full(MASK)) as tuning:
        seen = [(step.number, step.learning_rate) for step in steps(ensemble, tuning.parameters, fewer(13))]
    assert [number for number, _ in seen] == list(range(1, 14))
    assert sorted(ensemble.record.steps) == [4, 4, 5]
    peaks = [number for number, rate in seen if rate == RATE]
    assert len(peaks) >= 3, "each rises to the peak by itself"


def test_no_average_is_kept_where_none_is_asked_for(small):
    config = fewer(4).model_copy(update={"ema_decay": 0.0})
    _, own, average = sharded_bits(small, training(small, IterativeEnsemble(2, 2)), config=config)
    assert own == average


QUERIES = "down_blocks.1.attentions.0.to_q.weight"


@pytest.mark.parametrize("method", ["full", "svdiff", "lora", "difffit"])
def test_a_mask_changes_nothing_else_under_any_method(small, method):
    settings = {"rank": 2.0, "alpha": 2.0} if method == "lora" else {}
    mask = [ParameterGroup("chosen", method, (QUERIES,), 0, settings=settings)]
    before = {name: tensor.clone() for name, tensor in small.unet.state_dict().items()}
    ensemble = training(small, SMALL_PLUS)
    with tuned(small.unet, mask) as tuning:
        start = bits(tuning.parameters)
        own = run(steps(ensemble, tuning.parameters))[1]
        assert own != start
        with tuning.folded():
            changed = {name for name, value in small.unet.state_dict().items() if not torch.equal(value, before[name])}
        scaled = {QUERIES.replace("weight", "bias")} if method == "difffit" else set()
        assert changed == {QUERIES, *scaled}
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.unet.state_dict().items())


def test_the_images_skipped_are_those_below_the_bank(small):
    ensemble = training(small, IterativeEnsemble(2, 1, AntiGradientControl(1e-6)))
    for shard in ensemble.shards:
        shard.bank.means[:] = 1e3
    with tuned(small.unet, full(MASK)) as tuning:
        before = bits(tuning.parameters)
        kept = [step.kept for step in steps(ensemble, tuning.parameters)]
        assert bits(tuning.parameters) == before, "no step is taken where all is skipped"
    assert kept == [0] * 6
    assert ensemble.record.skips.sum() == ensemble.record.seen.sum() == 18
    for shard, bank in zip(ensemble.shards, ensemble.record.banks, strict=True):
        assert set(np.flatnonzero(bank.skips)) == set(shard.members), "each bank judges its own images alone"


def test_every_second_round_moves_images_instead_of_averaging(small):
    ensemble = training(small, IterativeEnsemble(2, 4, AntiGradientControl(1.0), moved=0.34))
    start, at = [set(shard.members) for shard in ensemble.shards], []
    with tuned(small.unet, full(MASK)) as tuning:
        for step in steps(ensemble, tuning.parameters, fewer(16)):
            if step.number % 4 == 0:
                first, second = ([tensor.numpy().tobytes() for tensor in shard.copies] for shard in ensemble.shards)
                at.append((first == second, [set(members) for members in ensemble.record.members]))
    assert [same for same, _ in at] == [False, True, False, True], "the last round averages"
    members = [held for _, held in at]
    assert start != members[0] == members[1]
    assert members[2] == members[3]
    assert all(sorted([*one, *other]) == list(range(6)) for one, other in members)


def test_the_images_that_move_are_the_most_skipped_and_their_counts_begin_anew(small):
    ensemble = training(small, IterativeEnsemble(2, 2, AntiGradientControl(1.0), moved=0.34))
    given = [shard.members[1] for shard in ensemble.shards]
    for shard, image in zip(ensemble.shards, given, strict=True):
        shard.bank.skips[image] = 100
    with tuned(small.unet, full(MASK)) as tuning:
        for step in steps(ensemble, tuning.parameters, fewer(8)):
            if step.number == 4:
                held = [set(shard.members) for shard in ensemble.shards]
                assert given[0] in held[1]
                assert given[1] in held[0]
                assert all(shard.skips.sum() == 0 for shard in ensemble.shards)
                assert ensemble.record.skips.sum() >= 200, "the record counts from the beginning"
                drawn = [set(shard.drawn.at(shard.done).positions) for shard in ensemble.shards]
                assert drawn == held


def test_augmented_steps_are_counted_among_the_steps(small):
    wide = ThresholdAugmentation(band=1e9, queue=2)
    ensemble = training(small, IterativeEnsemble(2, 1, AntiGradientControl(1e3), augmentation=wide))
    for shard in ensemble.shards:
        shard.bank.means[:] = 1e-3
    sharded_bits(small, ensemble)
    record = ensemble.record
    assert record.steps.tolist() == [3, 3]
    assert record.extra.tolist() == [1, 1], "three are queued: a step of two, then an ordinary one"
    assert record.augmented.sum() == 4
    assert record.skips.sum() == 0


def test_models_with_captions_train_in_shards_repeatably(tiny):
    first_training = training(tiny, SMALL_PLUS)
    first = sharded_bits(tiny, first_training)
    torch.manual_seed(7)
    assert sharded_bits(tiny, training(tiny, SMALL_PLUS)) == first
    assert first_training.record.steps.tolist() == [3, 3]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_where_there_are_enough_images_and_steps(small, name):
    settings = replace(PRESETS[name], rounds=min(2, PRESETS[name].rounds))
    images = small_images(12, size=16)
    ensemble = settings.training(small, images, plain_batches(small, images=images))
    losses, _, _ = sharded_bits(small, ensemble, config=fewer(settings.shards * settings.rounds))
    assert np.isfinite(losses).all()
    assert set(ensemble.record.steps) == {settings.rounds}
    assert len(ensemble.record.banks) == (0 if settings.control is None else settings.shards)


def test_a_mitigation_of_the_data_stands_in_front_of_every_shard(small):
    asked = []

    class Watched:
        def __init__(self, inner):
            self.inner = inner

        def at(self, step):
            batch = self.inner.at(step)
            asked.append(set(batch.positions))
            return replace(batch, noise=torch.zeros_like(batch.noise))

    ensemble = training(small, IterativeEnsemble(2, 1), data=Watched)
    sharded_bits(small, ensemble)
    assert asked[:3] == [set(ensemble.shards[0].members)] * 3
    assert asked[3:] == [set(ensemble.shards[1].members)] * 3


def test_what_comes_after_each_step_is_done_in_every_shard(small):
    rates = []
    ensemble = training(small, IterativeEnsemble(2, 1))
    with tuned(small.unet, full(MASK)) as tuning:
        list(steps(ensemble, tuning.parameters, after=lambda _, rate: rates.append(rate)))
    assert len(rates) == 6
    assert rates[:3] == rates[3:]


def test_a_diverging_shard_is_named(small):
    class Broken:
        def __init__(self, inner):
            self.inner, self.bad = inner, 1 in inner.at(0).positions

        def at(self, step):
            batch = self.inner.at(step)
            return replace(batch, noise=batch.noise * float("nan")) if self.bad else batch

    ensemble = training(small, IterativeEnsemble(2, 1), data=Broken)
    bad = next(k for k, shard in enumerate(ensemble.shards) if 1 in shard.members)
    with pytest.raises(DivergedError, match=f"shard {bad + 1} of 2: loss is nan at step 1"):
        sharded_bits(small, ensemble)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 0}, "shards of ensemble training is 0: expected a whole number, 1 or more"),
        ({"shards": 1.5}, "shards of ensemble training is 1.5"),
        ({"rounds": -1}, "rounds of ensemble training is -1"),
        ({"control": STRICT, "moved": 1.0}, r"moved, .* is 1.0: expected a number, 0 to below 1"),
        ({"control": STRICT, "moved": -0.25}, r"moved, .* is -0.25"),
        ({"moved": 0.25}, "there is no control: give one"),
        ({"augmentation": ThresholdAugmentation()}, "there is no control: give one"),
    ],
)
def test_a_strength_out_of_its_range_is_refused(settings, message):
    with pytest.raises(MemControlError, match=message):
        IterativeEnsemble(**settings)


def test_what_cannot_be_divided_is_refused(small):
    with pytest.raises(MemControlError, match="10 shards for 6 training images"):
        training(small, PRESETS["iet-agc-cifar"])
    with pytest.raises(MemControlError, match=r"6 steps for 2 shards and 4 rounds: .* give at least 8 steps"):
        sharded_bits(small, training(small, IterativeEnsemble(2, 4)))
    ensemble = training(small, IterativeEnsemble(2, 1))
    sharded_bits(small, ensemble)
    with pytest.raises(MemControlError, match="these shards have been trained"):
        sharded_bits(small, ensemble)


def sharded_json(frozen):
    """Losses, trained tensors and the record of a training that redistributes, augments and averages."""
    wide = ThresholdAugmentation(queue=2)
    ensemble = training(frozen, IterativeEnsemble(2, 4, AntiGradientControl(1.0), moved=0.34, augmentation=wide))
    losses, *trained = sharded_bits(frozen, ensemble, config=fewer(16))
    record = ensemble.record
    arrays = [record.skips, record.seen, record.steps, record.extra, record.augmented, *record.members]
    return {
        "losses": losses,
        "trained": [{name: content.hex() for name, content in tensors.items()} for tensors in trained],
        "record": [array.tolist() for array in (*arrays, *(bank.means for bank in record.banks))],
    }


def one_of_two(rank, port, frozen, path):
    """What a process does that was launched as one of two."""
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    path.write_text(json.dumps(sharded_json(frozen) | {"agreed": of_first(rank + 0.5, Accelerator(cpu=True))}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by forking")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_one_process_for_each_shard_trains_what_one_process_trains(small, tmp_path):
    """Two processes that average through their group, against both shards in this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [tmp_path / f"{rank}.json" for rank in (0, 1)]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=one_of_two, args=(rank, port, small, path)) for rank, path in enumerate(paths)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
    first, second = (json.loads(path.read_text()) for path in paths)
    here = sharded_json(small)
    assert first["trained"] == second["trained"] == here["trained"]
    assert first["record"] == second["record"] == here["record"]
    assert first["losses"] != second["losses"]
    assert first["agreed"] == second["agreed"] == 0.5
    assert sorted([*first["losses"], *second["losses"]]) == sorted(here["losses"])


def test_more_processes_than_shards_are_refused(small):
    class Several:
        num_processes, process_index, mixed_precision = 3, 0, "no"

    with pytest.raises(MemControlError, match="3 processes for 2 shards: start as many processes as shards at most"):
        next(steps(training(small, IterativeEnsemble(2, 1)), {}, accelerator=Several()))


def test_float16_with_several_shards_to_a_process_is_refused(small):
    class Half:
        num_processes, process_index, mixed_precision = 1, 0, "fp16"

    with pytest.raises(MemControlError, match="share a loss scaler"):
        next(steps(training(small, IterativeEnsemble(2, 1)), {}, accelerator=Half()))


def test_presets_are_the_published_numbers():
    cifar, stable = PRESETS["iet-agc+-cifar"], PRESETS["iet-agc+-sd"]
    assert (cifar.shards, cifar.rounds, cifar.control.multiplier, cifar.control.decay) == (10, 10, 2.0, 0.8)
    assert (stable.shards, stable.rounds, stable.control.multiplier, stable.control.decay) == (4, 25, 1.25, 0.8)
    assert cifar.moved == stable.moved == 0.25
    assert cifar.augmentation == ThresholdAugmentation(1.5, 5.0, 8, 2, 5.0)
    for place in ("cifar", "sd"):
        assert replace(PRESETS[f"iet-agc+-{place}"], moved=0.0, augmentation=None) == PRESETS[f"iet-agc-{place}"]
        assert replace(PRESETS[f"iet-agc-{place}"], control=None) == PRESETS[f"iet-{place}"]
        assert replace(PRESETS[f"iet-agc-{place}"], shards=1, rounds=1) == PRESETS[f"agc-{place}"]

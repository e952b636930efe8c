"""The inner loop trains the mask's tensors and nothing else, on batches that depend on seed and step alone."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from memcontrol.config import TuningConfig
from memcontrol.data.images import images_from_array
from memcontrol.errors import DivergedError
from memcontrol.finetuning import (
    Batch,
    TrainingBatches,
    finetune,
    finetune_pipeline,
    learning_rate_factor,
    noise_target,
    training_batches,
)
from memcontrol.finetuning import batches as batches_module
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.pipeline import LatentMoments, TextEmbeddings

CONFIG = TuningConfig(steps=4, batch=3, warmup=0.25)
SHORT = TuningConfig(steps=2, batch=3, warmup=0.25)
TEXT_ROWS = np.array([1, 2, 3, 1, 2, 3], dtype=np.intp)
MASKS = {"ends": ["conv_in.weight", "conv_out.bias"], "norm": ["conv_norm_out.weight"]}


def full(names):
    return [ParameterGroup("chosen", "full", tuple(names), 0)]


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


def synthetic(*, repeats=(1,) * 10, batch=4, caption_dropout=0.1, seed=0):
    """Batches of images whose latents say which image they are, and whose captions do too."""
    count = len(repeats)
    mean = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, 2, 3, 3))
    table = np.broadcast_to(np.arange(-1, count, dtype=np.float32)[:, None, None], (count + 1, 5, 6))
    return TrainingBatches(
        latents=LatentMoments(mean, np.full_like(mean, 1e-3)),
        text=TextEmbeddings(table, np.arange(1, count + 1)),
        repeats=np.array(repeats),
        batch=batch,
        caption_dropout=caption_dropout,
        train_timesteps=1000,
        seed=seed,
    )


@pytest.fixture(scope="module")
def batches(tiny):
    """Real latents and captions of three small images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    images = images_from_array(pixels, ["one", "two", "two"], keys=["a", "b", "c"])
    return TrainingBatches(
        tiny.latent_moments(images), tiny.text_embeddings(images.captions), np.array([1, 1, 1]), 3, 0.1, 1000, 0
    )


def trained(tiny, batches, names, accelerator, *, rate=1e-3, config=CONFIG):
    """Steps of tuning `names`, from inside `tuned`."""
    with tuned(tiny.unet, full(names)) as tuning:
        parameters = tuning.parameters
        yield from finetune_pipeline(
            tiny, parameters, batches, learning_rate=rate, config=config, accelerator=accelerator
        )


def snapshot(unet):
    return {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}


def changed(unet, before):
    return {name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name])}


# Batches


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.equal(getattr(first, key), getattr(second, key)) for key in ("clean", "noise", "timesteps", "text")
    )


def test_a_batch_is_a_function_of_seed_and_step_alone():
    first = [synthetic().at(step) for step in range(5)]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = [synthetic().at(step) for step in (4, 3, 2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert not same(first[0], first[1])
    assert not same(first[0], synthetic(seed=1).at(0))


def test_batches_do_not_depend_on_the_mask(tiny, batches, accelerator):
    inputs = {name: [] for name in MASKS}
    for name, parameters in MASKS.items():
        with torch.no_grad():
            hook = tiny.unet.register_forward_pre_hook(
                lambda _, given, seen=inputs[name]: seen.append([part.clone() for part in given])
            )
        try:
            list(trained(tiny, batches, parameters, accelerator, config=SHORT))
        finally:
            hook.remove()
    for one, other in zip(inputs["ends"], inputs["norm"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("repeats", "batch"), [((1,) * 10, 4), ((1, 5, 2), 3), ((1, 1), 7)])
def test_each_epoch_covers_every_image_as_often_as_it_repeats(repeats, batch):
    length = sum(repeats)
    made = synthetic(repeats=repeats, batch=batch)
    stream = np.concatenate([made.positions(step) for step in range(3 * length)])
    epochs = stream.reshape(-1, length)
    for epoch in epochs:
        assert np.bincount(epoch, minlength=len(repeats)).tolist() == list(repeats)
    if length > 5:
        assert not np.array_equal(epochs[0], epochs[1]), "epochs are shuffled anew"


def test_images_and_captions_of_a_batch_belong_together():
    made = synthetic(caption_dropout=0.0)
    for step in range(5):
        batch, positions = made.at(step), made.positions(step)
        assert batch.clean.mean(dim=(1, 2, 3)).round().tolist() == positions.tolist()
        assert batch.text[:, 0, 0].tolist() == positions.tolist()
        assert batch.text.shape == (4, 5, 6)


def test_captions_are_dropped_at_the_stated_rate():
    made = synthetic(batch=8, caption_dropout=0.3)
    dropped = torch.cat([(made.at(step).text == -1).all(dim=(1, 2)) for step in range(250)])
    kept = torch.cat([made.at(step).text[:, 0, 0] for step in range(250)])[~dropped]
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.04)
    assert set(kept.tolist()) == set(range(10))


def test_noise_timesteps_and_posterior_are_drawn_fully():
    made = synthetic(batch=16)
    all_batches = [made.at(step) for step in range(60)]
    timesteps = torch.cat([batch.timesteps for batch in all_batches])
    assert timesteps.dtype == torch.int64
    assert 0 <= timesteps.min() < 20
    assert 980 < timesteps.max() < 1000
    noise = torch.cat([batch.noise.flatten() for batch in all_batches])
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.03)
    posterior = torch.cat([(batch.clean - batch.clean.round()).flatten() for batch in all_batches])
    assert posterior.std() == pytest.approx(1e-3, rel=0.05)


def test_batches_of_a_data_set_carry_its_repeats(tiny, laboratory):
    made = training_batches(tiny, laboratory.dataset, TuningConfig(batch=5, caption_dropout=0.2), seed=4)
    assert (made.batch, made.caption_dropout, made.seed, made.train_timesteps) == (5, 0.2, 4, 1000)
    assert made.repeats.tolist() == [1] * 8
    assert made.latents.mean.shape == (8, *tiny.latent_shape)
    assert made.at(0).text.shape[0] == 5


def test_batches_are_those_behind_published_scores():
    """The order of random draws is part of every score: these numbers were drawn when the first were published."""
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((6, 2, 3, 3)).astype(np.float32)
    latents = LatentMoments(mean, rng.random((6, 2, 3, 3)).astype(np.float32))
    text = TextEmbeddings(np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (4, 2, 3)), TEXT_ROWS)
    batch = TrainingBatches(latents, text, np.array([1, 1, 2, 1, 1, 1]), 5, 0.5, 1000, 3).at(0)
    assert batch.timesteps.tolist() == [255, 212, 408, 138, 105]
    assert batch.text[:, 0, 0].tolist() == [3, 0, 1, 1, 2]
    assert batch.clean.flatten()[:4].tolist() == pytest.approx([-0.616815, -0.686582, 0.713649, 1.710569], abs=1e-5)
    assert batch.noise.flatten()[-4:].tolist() == pytest.approx([-0.445703, -0.463452, -0.363278, -1.326063], abs=1e-5)
    assert batch.clean.sum().item() == pytest.approx(17.4058056, abs=1e-4)
    assert batch.noise.sum().item() == pytest.approx(-9.1442566, abs=1e-4)


def test_without_text_a_batch_is_the_same_but_for_it():
    told = synthetic()
    untold = replace(told, text=None)
    for step in range(3):
        batch, same_but_text = told.at(step), untold.at(step)
        assert same_but_text.text is None
        assert same_but_text.conditioning == ()
        assert same(batch, replace(same_but_text, text=batch.text))


def test_the_first_batches_are_kept_for_the_next_training_up_to_a_bound(monkeypatch):
    made = synthetic()
    monkeypatch.setattr(batches_module, "MEMO_BYTES", 2 * made.at(0).nbytes)
    assert made.at(0) is made.at(0)
    assert made.at(1) is made.at(1)
    assert made.at(2) is not made.at(2)
    assert same(made.at(2), made.at(2))
    assert not same(replace(made, seed=1).at(0), made.at(0))


# Training


@pytest.mark.parametrize("names", MASKS.values(), ids=MASKS.keys())
def test_only_the_masks_tensors_change_and_all_return(tiny, batches, accelerator, names):
    before = snapshot(tiny.unet)
    numbers = []
    for step in trained(tiny, batches, names, accelerator):
        numbers.append(step.number)
        assert changed(tiny.unet, before) <= set(names)
        last = changed(tiny.unet, before)
    assert numbers == [1, 2, 3, 4]
    assert last == set(names)
    assert changed(tiny.unet, before) == set()


def test_everything_returns_when_training_is_broken_off(tiny, batches, accelerator):
    before = snapshot(tiny.unet)

    def broken_off():
        with tuned(tiny.unet, full(MASKS["ends"])) as tuning:
            parameters = tuning.parameters
            for _ in finetune_pipeline(
                tiny, parameters, batches, learning_rate=1e-3, config=CONFIG, accelerator=accelerator
            ):
                assert changed(tiny.unet, before)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert changed(tiny.unet, before) == set()
    assert not any(parameter.requires_grad for parameter in tiny.unet.parameters())


def test_the_optimizer_has_state_for_what_trains_alone(tiny, batches, accelerator, monkeypatch):
    made = []

    class Recorded(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    with tuned(tiny.unet, full(MASKS["ends"])) as tuning:
        parameters = tuning.parameters
        steps = finetune_pipeline(tiny, parameters, batches, learning_rate=1e-3, config=CONFIG, accelerator=accelerator)
        next(steps)
        (optimizer,) = made
        (state,) = optimizer.state.values()
        moved = torch.count_nonzero(state["exp_avg"]).item()
        assert 0 < moved <= sum(parameter.numel() for parameter in parameters.values())
        assert state["exp_avg"].numel() < moved + 16 * len(parameters)
        others = [parameter for name, parameter in tiny.unet.named_parameters() if name not in parameters]
        assert all(parameter.grad is None for parameter in others)
        steps.close()


def test_training_is_the_textbook_loop(tiny, batches, accelerator):
    """The same numbers from plain AdamW on the same batches, with no accelerate and no average."""
    config = TuningConfig(steps=3, batch=3, warmup=0.0, clip=0.05, weight_decay=0.1)
    from diffusers import DDPMScheduler

    with tuned(tiny.unet, full(MASKS["ends"])) as tuning:
        parameters = tuning.parameters
        schedule = DDPMScheduler.from_config(tiny.scheduler_config)
        optimizer = torch.optim.AdamW(parameters.values(), weight_decay=0.1)
        losses = []
        for number in range(3):
            optimizer.param_groups[0]["lr"] = 1e-2 * learning_rate_factor(number, 3, 0.0)
            batch = batches.at(number)
            level = schedule.alphas_cumprod[batch.timesteps][:, None, None, None]
            noisy = level.sqrt() * batch.clean + (1 - level).sqrt() * batch.noise
            velocity = level.sqrt() * batch.noise - (1 - level).sqrt() * batch.clean
            target = velocity if schedule.config.prediction_type == "v_prediction" else batch.noise
            loss = torch.nn.functional.mse_loss(tiny.unet(noisy, batch.timesteps, batch.text).sample, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 0.05)
            optimizer.step()
            losses.append(loss.item())
        expected = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    steps = trained(tiny, batches, MASKS["ends"], accelerator, rate=1e-2, config=config)
    for step, loss in zip(steps, losses, strict=True):
        assert step.loss == pytest.approx(loss, rel=1e-4)
        if step.number == 3:
            for name, parameter in step.parameters.items():
                torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-4, atol=1e-6)


def test_training_learns(tiny, batches, accelerator):
    names = [name for name, _ in tiny.unet.named_parameters()]
    config = TuningConfig(steps=25, batch=3, caption_dropout=0)
    fixed = [batches.at(7)] * 25
    with tuned(tiny.unet, full(names)) as tuning:
        parameters = tuning.parameters

        class Same:
            def at(self, step):
                return fixed[step]

        losses = [
            step.loss
            for step in finetune_pipeline(
                tiny, parameters, Same(), learning_rate=3e-3, config=config, accelerator=accelerator
            )
        ]
    assert losses[-1] < 0.9 * losses[0]


def test_training_is_repeatable_bit_for_bit(tiny, batches, accelerator):
    first = [step.loss for step in trained(tiny, batches, MASKS["ends"], accelerator, config=SHORT)]
    torch.manual_seed(5)
    assert [step.loss for step in trained(tiny, batches, MASKS["ends"], accelerator, config=SHORT)] == first


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises(tiny, batches, accelerator, value):
    class Broken:
        def at(self, step):
            batch = batches.at(step)
            return batch if step < 2 else replace(batch, noise=batch.noise * value)

    before, done = snapshot(tiny.unet), []
    with pytest.raises(DivergedError, match=r"at step 3: lower the learning rate \(0\.002\)"):
        done.extend(trained(tiny, Broken(), MASKS["ends"], accelerator, rate=2e-3))
    assert len(done) == 2
    assert changed(tiny.unet, before) == set()


def test_learning_rate_rises_then_falls_along_a_cosine(tiny, batches, accelerator):
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert 0 < factors[99] < 1e-3
    assert learning_rate_factor(0, 1, 0.0) == 1.0
    assert [learning_rate_factor(step, 2, 0.99) for step in range(2)] == [0.5, 1.0]
    rates = [step.learning_rate for step in trained(tiny, batches, MASKS["norm"], accelerator, rate=0.02)]
    assert rates == pytest.approx([0.02 * learning_rate_factor(step, 4, 0.25) for step in range(4)])


def test_velocity_is_the_target_where_the_schedule_says_so(tiny):
    from diffusers import DDPMScheduler

    batch = synthetic().at(0)
    plain = DDPMScheduler.from_config(tiny.scheduler_config, prediction_type="epsilon")
    assert torch.equal(noise_target(plain, batch), batch.noise)
    velocity = DDPMScheduler.from_config(tiny.scheduler_config, prediction_type="v_prediction")
    level = velocity.alphas_cumprod[batch.timesteps][:, None, None, None]
    expected = level.sqrt() * batch.noise - (1 - level).sqrt() * batch.clean
    torch.testing.assert_close(noise_target(velocity, batch), expected)


# The average


def test_inside_averaged_the_tensors_hold_their_average_and_outside_their_own(tiny, batches, accelerator):
    config = CONFIG.model_copy(update={"steps": 6, "ema_decay": 0.6, "warmup": 0.0})
    average = None
    for step in trained(tiny, batches, MASKS["ends"], accelerator, rate=1e-2, config=config):
        own = {name: parameter.detach().clone() for name, parameter in step.parameters.items()}
        # The decay rises with the steps, as diffusers states it: 1 - (1 + step) ** -power, no more than ema_decay.
        decay = 0.0 if step.number == 1 else min(0.6, 1 - step.number**-0.75)
        average = {
            name: own[name] if average is None else decay * average[name] + (1 - decay) * own[name] for name in own
        }
        with step.averaged():
            for name, parameter in step.parameters.items():
                torch.testing.assert_close(parameter.detach(), average[name])
        assert all(torch.equal(parameter, own[name]) for name, parameter in step.parameters.items())
    assert any(not torch.equal(average[name], own[name]) for name in own)


def test_the_tensors_own_values_return_when_sampling_fails(tiny, batches, accelerator):
    for step in trained(tiny, batches, MASKS["ends"], accelerator, rate=1e-2, config=SHORT):
        own = {name: parameter.detach().clone() for name, parameter in step.parameters.items()}
        with pytest.raises(RuntimeError, match="sampling"), step.averaged():
            raise RuntimeError("sampling")
        assert all(torch.equal(parameter, own[name]) for name, parameter in step.parameters.items())


def test_looking_at_the_average_does_not_change_training(tiny, batches, accelerator):
    config = SHORT.model_copy(update={"steps": 3})
    losses = [step.loss for step in trained(tiny, batches, MASKS["ends"], accelerator, rate=1e-2, config=config)]
    looked = []
    for step in trained(tiny, batches, MASKS["ends"], accelerator, rate=1e-2, config=config):
        with step.averaged():
            looked.append(step.loss)
    assert looked == losses


def test_without_an_average_the_last_tensors_are_used(tiny, batches, accelerator):
    config = SHORT.model_copy(update={"ema_decay": 0.0})
    for step in trained(tiny, batches, MASKS["norm"], accelerator, config=config):
        own = step.parameters["conv_norm_out.weight"].detach().clone()
        with step.averaged():
            assert torch.equal(step.parameters["conv_norm_out.weight"], own)
        assert step.average is None


def test_tuning_in_half_precision_leaves_the_u_net_as_it_was(tiny, batches, monkeypatch):
    """A forward that stays wrapped would make every later trial sample in another precision."""
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # one process can otherwise have one precision only
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    inputs = (torch.ones(1, *tiny.latent_shape), torch.tensor([5]), batches.text.empty(1))
    with torch.no_grad():
        before = tiny.unet(*inputs).sample
    try:
        losses = [step.loss for step in trained(tiny, batches, MASKS["ends"], accelerator, config=SHORT)]
        with torch.no_grad():
            after = tiny.unet(*inputs).sample
    finally:
        accelerator.unwrap_model(tiny.unet, keep_fp32_wrapper=False)
    assert torch.equal(after, before)
    monkeypatch.undo()
    exact = [step.loss for step in trained(tiny, batches, MASKS["ends"], Accelerator(cpu=True), config=SHORT)]
    assert losses == pytest.approx(exact, rel=0.05)
    assert losses != exact, "the precision had no effect"


def test_finetune_takes_any_network_and_schedule(accelerator):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy, _timesteps, _text, *, return_dict):
            assert not return_dict
            return (self.scale * noisy,)

    network = Network()
    steps = finetune(
        network,
        {"scale": network.scale},
        synthetic(),
        learning_rate=0.1,
        config=TuningConfig(steps=2, batch=4),
        scheduler_config={"num_train_timesteps": 1000, "prediction_type": "epsilon"},
        accelerator=accelerator,
    )
    first = next(steps)
    assert first.loss == pytest.approx(synthetic().at(0).noise.square().mean().item())
    assert network.scale != 0

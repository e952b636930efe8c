"""Early stopping ends where the held-out loss stops falling, and leaves the best tensors behind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from memcontrol.config import TuningConfig
from memcontrol.data.images import images_from_array
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.finetuning import TrainingBatches, finetune_pipeline
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.mitigations.early_stopping import Check, EarlyStopping, HeldOutLoss

GROUPS = [ParameterGroup("ends", "full", ("conv_norm_out.weight", "conv_out.bias"), 0)]


def pictures(count, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return images_from_array(pixels, [f"picture {i}" for i in range(count)], keys=[f"{seed}-{i}" for i in range(count)])


@pytest.fixture(scope="module")
def batches(tiny):
    images = pictures(3, 0)
    return TrainingBatches(
        tiny.latent_moments(images), tiny.text_embeddings(images.captions), np.ones(3, dtype=np.int64), 2, 0.1, 1000, 0
    )


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


class Scripted:
    """A held-out loss that follows a script and keeps the tensors that it was asked about."""

    def __init__(self, losses, parameters):
        self.losses, self.parameters, self.seen = list(losses), parameters, []

    def __call__(self):
        self.seen.append(copied(self.parameters))
        return self.losses[len(self.seen) - 1]


def copied(parameters):
    return [tensor.detach().clone() for tensor in parameters.values()]


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def plain_steps(tiny, parameters, batches, accelerator, steps=6, ema=0.9):
    config = TuningConfig(steps=steps, batch=2, ema_decay=ema)
    return finetune_pipeline(tiny, parameters, batches, learning_rate=1e-3, config=config, accelerator=accelerator)


@pytest.mark.parametrize("ema", [0.9, 0.0])
@pytest.mark.parametrize(
    ("losses", "patience", "taken", "best"),
    [
        ([3, 2, 2.5, 2.6, 1, 1], 2, 4, 2),
        ([3, 2, 2.5, 1.5, 1.6, 1.7], 2, 6, 4),
        ([3, 2, 2.5, 1.5, 1.6, 1.4], 9, 6, 6),
        ([1, 1, 1, 1, 1, 1], 1, 2, 1),
        ([3, 2.9, 2.8, 2.7, 2.6, 2.5], 1, 6, 6),
    ],
)
def test_it_stops_and_returns_to_the_best(tiny, batches, accelerator, losses, patience, taken, best, ema):
    with tuned(tiny.unet, GROUPS) as tuning:
        loss = Scripted(losses, tuning.parameters)
        watch = EarlyStopping(patience, every=1, improvement=0.001).watch(loss)
        steps = list(watch.steps(plain_steps(tiny, tuning.parameters, batches, accelerator, ema=ema)))
        assert len(steps) == taken
        assert watch.checks == [Check(number + 1, losses[number]) for number in range(taken)]
        assert watch.best == Check(best, losses[best - 1])
        assert same(copied(tuning.parameters), loss.seen[best - 1])
        with steps[-1].averaged():
            assert same(copied(tuning.parameters), loss.seen[best - 1])
        assert not same(loss.seen[0], loss.seen[1])


def test_losses_are_those_of_the_averaged_tensors(tiny, batches, accelerator):
    with tuned(tiny.unet, GROUPS) as tuning:
        loss = Scripted([2.0, 1.0, 0.5], tuning.parameters)
        for step in (
            EarlyStopping(9, every=2).watch(loss).steps(plain_steps(tiny, tuning.parameters, batches, accelerator))
        ):
            if step.number == 2:
                with step.averaged():
                    assert same(copied(tuning.parameters), loss.seen[0])
                assert not same(copied(tuning.parameters), loss.seen[0]), "training goes on from its own tensors"


def test_small_gains_do_not_count_as_improvement(tiny, batches, accelerator):
    with tuned(tiny.unet, GROUPS) as tuning:
        watch = EarlyStopping(2, every=1, improvement=0.1).watch(Scripted([1.0, 0.95, 0.93, 0.1], tuning.parameters))
        assert len(list(watch.steps(plain_steps(tiny, tuning.parameters, batches, accelerator)))) == 3
        assert watch.best == Check(3, 0.93), "the lowest loss is kept, however little lower"


def test_the_last_step_is_checked_too(tiny, batches, accelerator):
    with tuned(tiny.unet, GROUPS) as tuning:
        watch = EarlyStopping(5, every=4).watch(Scripted([2.0, 1.0], tuning.parameters))
        list(watch.steps(plain_steps(tiny, tuning.parameters, batches, accelerator)))
        assert [check.step for check in watch.checks] == [4, 6]


def test_without_patience_training_is_plain_to_the_last_bit(tiny, batches, accelerator):
    ends = []
    for watched in (False, True):
        with tuned(tiny.unet, GROUPS) as tuning:
            steps = plain_steps(tiny, tuning.parameters, batches, accelerator)
            watch = EarlyStopping(None, every=1).watch(Scripted([], tuning.parameters))
            last = list(watch.steps(steps) if watched else steps)[-1]
            plain = copied(tuning.parameters)
            with last.averaged():
                ends.append([*plain, *copied(tuning.parameters)])
            assert not watch.checks
    assert same(*ends)


def test_a_loss_that_is_not_finite_is_an_error(tiny, batches, accelerator):
    with tuned(tiny.unet, GROUPS) as tuning:
        watch = EarlyStopping(2, every=1).watch(Scripted([1.0, float("nan")], tuning.parameters))
        with pytest.raises(DivergedError, match="held-out loss is nan at step 2"):
            list(watch.steps(plain_steps(tiny, tuning.parameters, batches, accelerator)))


def test_the_held_out_loss_is_the_mean_squared_error_on_pairs_that_stay(tiny):
    strength = EarlyStopping(pairs=40)
    loss = HeldOutLoss.of(tiny, pictures(5, 7), strength, seed=3)
    pairs = [(batch, row) for batch in loss.batches for row in range(len(batch.positions))]
    assert len(pairs) == 64
    levels = np.cumprod(1 - np.asarray(loss_betas(tiny)))
    errors = []
    with torch.no_grad():
        for batch, row in pairs[:8]:
            level = float(levels[batch.timesteps[row]])
            noisy = level**0.5 * batch.clean[row] + (1 - level) ** 0.5 * batch.noise[row]
            told = batch.text[row : row + 1]
            out = tiny.unet(noisy[None], batch.timesteps[row], told, return_dict=False)[0][0]
            target = batch.noise[row]
            if tiny.scheduler_config["prediction_type"] == "v_prediction":
                target = level**0.5 * batch.noise[row] - (1 - level) ** 0.5 * batch.clean[row]
            errors.append(float((out - target).square().mean()))
    first = replace(loss, batches=[slice_of(loss.batches[0], 8)])
    assert first() == pytest.approx(np.mean(errors), rel=1e-4)
    assert loss() == loss() == HeldOutLoss.of(tiny, pictures(5, 7), strength, seed=3)()
    assert loss() != HeldOutLoss.of(tiny, pictures(5, 7), strength, seed=4)()


def loss_betas(tiny):
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_config(dict(tiny.scheduler_config)).betas.double()


def slice_of(batch, count):
    parts = ("positions", "clean", "noise", "timesteps", "text")
    return replace(batch, **{name: getattr(batch, name)[:count] for name in parts})


def test_a_model_tuned_on_the_held_out_images_has_a_lower_held_out_loss(tiny, accelerator):
    images = pictures(3, 5)
    batches = TrainingBatches(
        tiny.latent_moments(images), tiny.text_embeddings(images.captions), np.ones(3, dtype=np.int64), 4, 0.0, 1000, 1
    )
    with tuned(tiny.unet, GROUPS) as tuning:
        watch = EarlyStopping(9, every=5).watch(HeldOutLoss.of(tiny, images, EarlyStopping(pairs=32), seed=0))
        list(watch.steps(plain_steps(tiny, tuning.parameters, batches, accelerator, steps=15)))
    assert watch.checks[-1].loss < watch.checks[0].loss


@pytest.mark.parametrize(
    ("strength", "said"),
    [
        ({"patience": 0}, "patience is 0: expected a whole number, 1 or more"),
        ({"every": 0}, "every is 0"),
        ({"every": 2.5}, "every is 2.5: expected a whole number"),
        ({"every": None}, "every is None"),
        ({"pairs": -3}, "pairs is -3"),
        ({"pairs": 1.5}, "pairs is 1.5"),
        ({"improvement": -0.1}, "improvement, a share of the loss, is -0.1: expected a number, 0 to below 1"),
        ({"improvement": 1}, "improvement, a share of the loss, is 1"),
        ({"improvement": float("nan")}, "improvement, a share of the loss, is nan"),
    ],
)
def test_other_strengths_are_refused(strength, said):
    with pytest.raises(MemControlError, match=said):
        EarlyStopping(**strength)


def test_no_held_out_images_are_an_error(tiny):
    with pytest.raises(MemControlError, match="no held-out images"):
        HeldOutLoss.of(tiny, pictures(0, 0), EarlyStopping(), seed=0)

"""Anti-gradient control skips what is below its timestep's running mean, by a bank that follows the formula."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from small_training import CONFIG, MASK, full, plain_batches, trained_bits

from memcontrol.errors import MemControlError
from memcontrol.finetuning import LossFacts, finetune_pipeline
from memcontrol.methods import tuned
from memcontrol.mitigations.loss_bank import AntiGradientControl


def facts(losses, timesteps, positions=None):
    return LossFacts(
        torch.tensor(losses, dtype=torch.float32),
        torch.tensor(timesteps),
        np.arange(len(losses)) if positions is None else np.array(positions),
        magnitudes=lambda: pytest.fail("the control needs no noise magnitudes"),
    )


def test_the_bank_follows_the_formula_by_hand():
    bank = AntiGradientControl(2.0).rule(timesteps=5, images=3)
    bank.keep(facts([1.0, 4.0, 2.0], [3, 3, 1]))
    first, second = 0.2 * 1.0, 0.8 * (0.2 * 1.0) + 0.2 * 4.0
    assert bank.means == pytest.approx([0, 0.2 * 2.0, 0, second, 0])
    assert second != pytest.approx(0.8 * (0.2 * 4.0) + 0.2 * first), "samples of a timestep enter in order"
    bank.keep(facts([0.0], [3]))
    assert bank.means[3] == pytest.approx(0.8 * second), "a skipped sample enters too"


@pytest.mark.parametrize(
    ("multiplier", "expected"), [(2.0, [True, True, True, False]), (1.25, [True, True, False, False])]
)
def test_what_is_below_the_bound_is_skipped(multiplier, expected):
    bank = AntiGradientControl(multiplier).rule(timesteps=2, images=4)
    bank.means[:] = 8.0, 1e9
    assert bank.keep(facts([9.0, 6.5, 4.0, 3.9], [0, 0, 0, 0])).tolist() == expected


def test_the_bound_is_the_bank_before_the_batch():
    bank = AntiGradientControl(1.0).rule(timesteps=1, images=2)
    assert bank.keep(facts([100.0, 1.0], [0, 0])).tolist() == [True, True], "an empty bank skips nothing"
    assert bank.keep(facts([1.0], [0])).tolist() == [False]


def test_skips_are_counted_for_each_training_image():
    bank = AntiGradientControl(1.0).rule(timesteps=1, images=4)
    bank.means[:] = 1.0
    bank.keep(facts([0.1, 0.2, 9.0, 0.1], [0, 0, 0, 0], positions=[2, 2, 0, 3]))
    record = bank.record()
    assert record.skips.tolist() == [0, 0, 2, 1]
    assert record.seen.tolist() == [1, 0, 2, 1]
    bank.keep(facts([0.1], [0], positions=[1]))
    assert record.skips.tolist() == [0, 0, 2, 1], "a record does not change"


def test_neighbouring_timesteps_share_a_mean_where_asked():
    bank = AntiGradientControl(1.0, width=4).rule(timesteps=10, images=3)
    assert bank.keep(facts([5.0, 5.0, 5.0], [0, 3, 9])).all()
    assert bank.means == pytest.approx([0.2 * 5 + 0.8 * 0.2 * 5, 0, 0.2 * 5])
    assert bank.keep(facts([0.9, 0.9, 0.9], [2, 5, 8])).tolist() == [False, True, False]


def test_random_batches_agree_with_a_loop_over_samples():
    rng = np.random.default_rng(0)
    control = AntiGradientControl(1.5, decay=0.6)
    bank, means = control.rule(timesteps=4, images=10), [0.0] * 4
    for _ in range(30):
        losses, timesteps = rng.exponential(size=6).astype(np.float32), rng.integers(4, size=6)
        expected = [bool(1.5 * float(loss) >= means[t]) for loss, t in zip(losses, timesteps, strict=True)]
        for loss, t in zip(losses, timesteps, strict=True):
            means[t] = 0.6 * means[t] + 0.4 * float(loss)
        assert bank.keep(facts(losses.tolist(), timesteps.tolist(), rng.integers(10, size=6))).tolist() == expected
    assert bank.means == pytest.approx(means, rel=1e-12)
    assert 0 < bank.skips.sum() < bank.seen.sum() == 180


def test_training_takes_no_step_where_everything_is_skipped(tiny):
    bank = AntiGradientControl(1.0).rule(timesteps=1000, images=6)
    bank.means[:] = 1e9
    with tuned(tiny.unet, full(MASK)) as tuning:
        before = [parameter.detach().clone() for parameter in tuning.parameters.values()]
        steps = finetune_pipeline(
            tiny,
            tuning.parameters,
            plain_batches(tiny),
            learning_rate=1e-2,
            config=CONFIG.model_copy(update={"steps": 2}),
            accelerator=Accelerator(cpu=True),
            rule=bank,
        )
        assert [step.kept for step in steps] == [0, 0]
        assert all(map(torch.equal, tuning.parameters.values(), before))
    assert bank.skips.sum() == 6


def test_training_goes_on_from_the_kept_samples_alone(tiny):
    """A bank that skips one image trains as one that was never shown its loss."""
    batches = plain_batches(tiny)

    class Without:
        def keep(self, facts):
            return torch.from_numpy(facts.positions != 1)

    class Banked:
        def __init__(self):
            self.bank = AntiGradientControl(1.0).rule(timesteps=1000, images=6)

        def keep(self, facts):
            self.bank.means[:] = 0
            self.bank.means[facts.timesteps[torch.from_numpy(facts.positions == 1)]] = 1e9
            return self.bank.keep(facts)

    assert trained_bits(tiny, batches, rule=Banked()) == trained_bits(tiny, batches, rule=Without())
    assert trained_bits(tiny, batches, rule=Banked()) != trained_bits(tiny, batches)


@pytest.mark.parametrize("multiplier", [0, -1.0, float("nan"), float("inf")])
def test_a_multiplier_that_is_not_above_zero_is_refused(multiplier):
    with pytest.raises(MemControlError, match=r"multiplier of anti-gradient control is .*: expected a number above 0"):
        AntiGradientControl(multiplier)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_its_range_is_refused(decay):
    with pytest.raises(MemControlError, match=r"decay of the loss bank is .* expected a number, 0 to below 1"):
        AntiGradientControl(decay=decay)


@pytest.mark.parametrize("width", [0, 1.5])
def test_a_width_out_of_its_range_is_refused(width):
    with pytest.raises(MemControlError, match=f"width of the loss bank, in timesteps, is {width}: expected a whole"):
        AntiGradientControl(width=width)

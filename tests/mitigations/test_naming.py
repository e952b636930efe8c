"""Mitigations as text: what cannot be trained with is refused before anything is loaded, in words of the text."""

from types import SimpleNamespace

import pytest

from memcontrol.config import TuningConfig
from memcontrol.errors import MemControlError
from memcontrol.mitigations.naming import load_mitigation
from memcontrol.mitigations.plan import MitigationPlan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("early-stopping:every=none", "early-stopping:every=none: every is none: expected a number"),
        ("early-stopping:every=2.5", r"early stopping: every is 2\.5: expected a whole number, 1 or more"),
        ("early-stopping:pairs=1.5", r"pairs is 1\.5: expected a whole number"),
        ("iet:shards=1.5", r"shards of ensemble training is 1\.5: expected a whole number, 1 or more"),
        ("iet:rounds=inf", "rounds of ensemble training is inf"),
        ("iet:moved=none", "iet:moved=none: moved is none: expected a number"),
        ("iet:width=50", "width 50 is of the control, which m=none leaves out"),
        ("agc:width=1.5", r"width of the loss bank, in timesteps, is 1\.5"),
        ("fewer-steps:share=none", "fewer-steps:share=none: share is none"),
        ("threshold:share=0.1,share=0.2", "threshold:share=0.1,share=0.2: share is given twice"),
        ("embedding-noise:strength=inf", "EmbeddingNoise.strength is inf: expected a number, 0 or more"),
        ("rwa:words=1", 'mitigation rwa has no strength "words=1"'),
    ],
)
def test_a_value_that_cannot_be_trained_with_is_refused(text, message):
    with pytest.raises(MemControlError, match=message):
        load_mitigation(text)


@pytest.mark.parametrize(
    "text",
    [
        "early-stopping:patience=none",
        "threshold:bound=none",
        "agc:m=none",
        "dp-sgd:noise=0,clip=inf",
        "iet-agc:width=50",
    ],
)
def test_what_switches_off_or_leaves_to_be_calibrated_is_read(text):
    load_mitigation(text)


def processes(count):
    return SimpleNamespace(num_processes=count, mixed_precision="no")


def test_shards_do_not_stop_early_in_several_processes():
    """Each would stop by its own shard's loss, and the others would wait for it without end."""
    plan = MitigationPlan.of(["iet:shards=2,rounds=1", "early-stopping"])
    with pytest.raises(MemControlError, match="early stopping of shards in 2 processes"):
        plan.check_training(TuningConfig(), processes(2))
    plan.check_training(TuningConfig(), processes(1))
    MitigationPlan.of(["iet:shards=2,rounds=1", "early-stopping:patience=none"]).check_training(
        TuningConfig(), processes(2)
    )
    MitigationPlan.of(["early-stopping"]).check_training(TuningConfig(), processes(2))

"""What masks are compared with: the untuned model, and full fine-tuning as a trajectory over steps and rates."""

from __future__ import annotations

from memcontrol.config import RunConfig
from memcontrol.groups import ParameterGroup
from memcontrol.study.trial import Evaluation, Laboratory, OnStep

FREEZE = "freeze"
FULL = "full"


def reference_names(config: RunConfig) -> tuple[str, ...]:
    """The references of a run, longest first so that workers finish together."""
    return (*(f"{FULL}-{rate:g}" for rate in config.search.trajectory_rates), FREEZE)


def trajectory_steps(config: RunConfig) -> tuple[int, ...]:
    """The steps at which a trajectory is scored."""
    return tuple(sorted({max(1, round(share * config.tuning.steps)) for share in config.search.trajectory_points}))


def score_reference(name: str, laboratory: Laboratory, on_step: OnStep) -> list[tuple[float | None, Evaluation]]:
    """Each checkpoint's learning rate and evaluation."""
    if name == FREEZE:
        return [(None, laboratory.untuned(on_step))]
    rate = float(name.removeprefix(f"{FULL}-"))
    whole = everything(laboratory)
    points = trajectory_steps(laboratory.config)
    return [(rate, evaluation) for evaluation in laboratory.trajectory((whole,), rate, points, on_step)]


def everything(laboratory: Laboratory) -> ParameterGroup:
    """One group of every parameter that the U-Net has, whatever the search space selects."""
    named = [
        (name, p.numel()) for name, p in laboratory.frozen.unet.named_parameters() if not name.startswith("time_proj.")
    ]
    return ParameterGroup(FULL, "full", tuple(name for name, _ in named), sum(numel for _, numel in named))

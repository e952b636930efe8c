"""What masks are compared with: the untuned model, and full fine-tuning as a trajectory over steps and rates."""

from __future__ import annotations

import torch

from memcontrol.config import RunConfig
from memcontrol.groups import ParameterGroup
from memcontrol.study.candidate import Candidate
from memcontrol.study.trial import Evaluation, Laboratory, OnStep

FREEZE = "freeze"
FULL = "full"


def trajectory_rates(laboratory: Laboratory) -> tuple[float, ...]:
    """The learning rates of full fine-tuning's trajectories: the configured ones, else those of the space."""
    rates = laboratory.config.search.trajectory_rates
    return laboratory.candidates.trajectory_rates() if rates is None else rates


def reference_names(laboratory: Laboratory) -> tuple[str, ...]:
    """The references of a run, longest first so that workers finish together."""
    return (*(f"{FULL}-{rate:g}" for rate in trajectory_rates(laboratory)), FREEZE)


def trajectory_steps(config: RunConfig) -> tuple[int, ...]:
    """The steps at which a trajectory is scored."""
    return tuple(sorted({max(1, round(share * config.tuning.steps)) for share in config.search.trajectory_points}))


def score_reference(name: str, laboratory: Laboratory, on_step: OnStep) -> list[tuple[float | None, Evaluation]]:
    """The learning rate and evaluation of each point.

    Each point of a trajectory is a training of its own, with its learning rate decayed to zero as a candidate's is: a
    checkpoint inside a longer schedule, its rate still high, is no fair counterpart (experiments/brain_search).
    """
    if name == FREEZE:
        return [(None, laboratory.untuned(on_step))]
    rate = float(name.removeprefix(f"{FULL}-"))
    whole = whole_model(laboratory)
    return [(rate, laboratory.evaluate(whole, rate, s, on_step)) for s in trajectory_steps(laboratory.config)]


def whole_model(laboratory: Laboratory) -> tuple[ParameterGroup, ...]:
    """All that the U-Net has: in the candidates' groups where these are all of it, so that one of them is the same."""
    whole, space = everything(laboratory.frozen.unet), laboratory.candidates
    groups = space.trained([1] * len(space.groups))
    plain = all(group.method == "full" and not group.settings for group in groups)
    same = {name for group in groups for name in group.parameters} == set(whole.parameters)
    return groups if plain and same else (whole,)


def as_candidate(laboratory: Laboratory, rate: float, steps: int) -> Candidate | None:
    """The candidate that trains as full fine-tuning's reference does; None where no mask of the space trains all."""
    space = laboratory.candidates
    every = (1,) * len(space.groups)
    if whole_model(laboratory) != space.trained(every):
        return None
    return Candidate(every, rate, steps, space.mitigations.middle)


def everything(unet: torch.nn.Module) -> ParameterGroup:
    """One group of every parameter that a U-Net has, whatever a search space selects; weights need not be loaded."""
    # A Fourier embedding of time has a weight that diffusers keeps fixed.
    named = [(name, p.numel()) for name, p in unet.named_parameters() if not name.startswith("time_proj.")]
    return ParameterGroup(FULL, "full", tuple(name for name, _ in named), sum(numel for _, numel in named))

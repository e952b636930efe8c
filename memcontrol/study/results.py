"""What a search writes: every trial as CSV, a mask file for each, and the front with its references."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from memcontrol.mask import Mask
from memcontrol.run import FRONT_SCHEMA, RunFolder
from memcontrol.score import Score, direction, minimised
from memcontrol.study.confirmed import read_confirmation, with_confirmed
from memcontrol.study.front import front_positions, hypervolume
from memcontrol.study.ledger import Ledger
from memcontrol.study.references import FREEZE, FULL
from memcontrol.study.shared import was_interrupted
from memcontrol.study.trial import Laboratory

VERSIONED = ("memcontrol", "torch", "diffusers", "optuna", "accelerate")


def trial_scores(trial: FrozenTrial) -> dict[str, Score]:
    """The scores of a finished trial."""
    return {name: Score.from_json(content) for name, content in trial.user_attrs["scores"].items()}


def objective_points(scored: list[dict[str, Score]], objectives: tuple[str, ...]) -> NDArray[np.float64]:
    """`(N, M)` values of the objectives, all to be minimised."""
    return np.array([[minimised(scores[name]) for name in objectives] for scores in scored]).reshape(
        -1, len(objectives)
    )


def write_trials(laboratory: Laboratory, ledger: Ledger, folder: RunFolder) -> None:
    """Write `trials.csv`, a row for every trial in any state."""
    config = laboratory.config
    names = laboratory.score_names
    scales = reward_scales(ledger, config.scoring.objectives, config.tuning.steps)
    rows = [_row(trial, ledger, names, scales, config.scoring.weights) for trial in ledger.trials()]
    strengths = laboratory.candidates.mitigations.names
    columns = ["number", "state", "mask", "learning_rate", *strengths, *names, "reward", "seconds", "worker", "error"]
    folder.write_trials(columns, rows)


def _row(
    trial: FrozenTrial,
    ledger: Ledger,
    names: Sequence[str],
    scales: dict[str, float] | None,
    weights: tuple[float, ...],
) -> dict[str, Any]:
    # A trial that is being claimed, or whose claim was killed, has only some of its parameters.
    whole = trial.params.keys() >= ledger.proposer.distributions().keys()
    candidate = ledger.proposer.candidate(trial.params) if whole else None
    row: dict[str, Any] = {
        "number": trial.number,
        "state": "interrupted" if was_interrupted(trial) else trial.state.name.lower(),
        "mask": candidate.mask if candidate else "",
        "learning_rate": candidate.learning_rate if candidate else "",
        **(ledger.proposer.space.mitigations.values(candidate.strengths) if candidate else {}),
        **{key: trial.user_attrs.get(key, "") for key in ("seconds", "worker", "error")},
    }
    if trial.state == TrialState.COMPLETE:
        scores = trial_scores(trial)
        value = reward(scores, scales, weights)
        row |= {name: scores[name].value for name in names} | {"reward": "" if value is None else value}
    return row


def reward_scales(ledger: Ledger, objectives: tuple[str, ...], steps: int) -> dict[str, float] | None:
    """|full - freeze| of each objective, or None where one is within noise or a reference is missing.

    Full fine-tuning is taken at the candidates' own number of steps (the nearest point), at its middle rate.
    """
    references = ledger.references()
    trajectories = [points for name, points in sorted(references.items()) if name.startswith(FULL)]
    if FREEZE not in references or not trajectories:
        return None
    middle = sorted(trajectories, key=lambda points: points[0]["learning_rate"])[len(trajectories) // 2]
    full = min(middle, key=lambda point: abs(point["steps"] - steps))["scores"]
    freeze = references[FREEZE][0]["scores"]
    scales = {}
    for name in objectives:
        noise = sum(float(point[name]["high"] - point[name]["low"]) / 2 for point in (full, freeze))
        scales[name] = abs(full[name]["value"] - freeze[name]["value"])
        if scales[name] <= noise:
            return None
    return scales


def reward(scores: dict[str, Score], scales: dict[str, float] | None, weights: tuple[float, ...]) -> float | None:
    """-sum of weight * minimised value / scale: it orders tables, the front never uses it."""
    if scales is None:
        return None
    return -sum(
        weight * minimised(scores[name]) / scale for weight, (name, scale) in zip(weights, scales.items(), strict=False)
    )


def write_results(laboratory: Laboratory, ledger: Ledger, folder: RunFolder) -> dict[str, Any]:
    """Write `trials.csv`, the masks of all completed trials and `front.json`; returns the content of the last."""
    write_trials(laboratory, ledger, folder)
    objectives = laboratory.config.scoring.objectives
    trials = [trial for trial in ledger.trials() if trial.state == TrialState.COMPLETE]
    scored = [trial_scores(trial) for trial in trials]
    for trial, scores in zip(trials, scored, strict=True):
        if not folder.mask(trial.number).exists():
            folder.mask(trial.number).parent.mkdir(exist_ok=True)
            trial_mask(trial, scores, laboratory, ledger, folder).save(folder.mask(trial.number))
    points = objective_points(scored, objectives)
    references = ledger.references()
    worst = _reference_point(references, objectives)
    states = [("interrupted" if was_interrupted(trial) else trial.state.name.lower()) for trial in ledger.trials()]
    content: dict[str, Any] = {
        "schema": FRONT_SCHEMA,
        "objectives": [{"name": name, "better": direction(name)} for name in objectives],
        "budget": ledger.budget,
        "sampler": ledger.proposer.sampler,
        "seed": laboratory.config.seed,
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "references": references,
        "front": [_member(trials[i], scored[i], ledger, folder) for i in front_positions(points)],
        "hypervolume": None if worst is None else hypervolume(points, worst),
        "reference_point": None if worst is None else worst.tolist(),
    }
    content = with_confirmed(content, read_confirmation(folder))
    folder.write_json(folder.front, content)
    return content


def _member(trial: FrozenTrial, scores: dict[str, Score], ledger: Ledger, folder: RunFolder) -> dict[str, Any]:
    candidate = ledger.proposer.candidate(trial.params)
    return {
        "mask": str(folder.mask(trial.number).relative_to(folder.path)),
        "trial": trial.number,
        "bits": candidate.mask,
        "trains": [group.name for group in ledger.proposer.space.trained(candidate.levels)],
        "numel": sum(group.numel for group in ledger.proposer.space.trained(candidate.levels)),
        "learning_rate": candidate.learning_rate,
        "mitigations": list(ledger.proposer.space.mitigation_texts(candidate)),
        "steps": candidate.steps,
        "scores": {name: score.to_json() for name, score in scores.items()},
    }


def _reference_point(references: dict[str, Any], objectives: tuple[str, ...]) -> NDArray[np.float64] | None:
    """The worst value of each objective over all references; None until there is one."""
    scored = [
        {n: Score.from_json(c) for n, c in point["scores"].items()}
        for points in references.values()
        for point in points
    ]
    return objective_points(scored, objectives).max(axis=0) if scored else None


def trial_mask(
    trial: FrozenTrial, scores: dict[str, Score], laboratory: Laboratory, ledger: Ledger, folder: RunFolder
) -> Mask:
    """The self-describing mask of a completed trial."""
    candidate, dataset, space = ledger.proposer.candidate(trial.params), laboratory.dataset, ledger.proposer.space
    chosen = [group.at(level or 1) for group, level in zip(space.groups, candidate.levels, strict=True)]
    return Mask.build(
        laboratory.space,
        [*chosen, *space.always],
        [*map(bool, candidate.levels), *([True] * len(space.always))],
        model=laboratory.model,
        unet_numel=sum(parameter.numel() for parameter in laboratory.frozen.unet.parameters()),
        learning_rate=candidate.learning_rate,
        name=f"{dataset.name}-{laboratory.space.name}-{trial.number:03d}",
        scores={name: score.to_json() for name, score in scores.items()},  # type: ignore[misc]
        provenance={
            "data": {"name": dataset.name, "n": len(dataset.training), "sha256": laboratory.data_fingerprint},
            "run": folder.path.name,
            "trial": trial.number,
            "seed": laboratory.config.seed,
            "steps": candidate.steps,
            "settings": laboratory.config.model_dump(mode="json", include={"data", "tuning", "sampling"})
            | {"mitigations": list(space.mitigation_texts(candidate))},
            "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        },
    )

"""What a search writes: every trial as CSV, a mask file for each, and the front with its references."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from memcontrol.config import ScoringConfig
from memcontrol.mask import Mask
from memcontrol.run import FRONT_SCHEMA, RunFolder
from memcontrol.score import Score, direction, minimised
from memcontrol.study.budget import COUNTED
from memcontrol.study.confirmed import read_confirmation, with_confirmed
from memcontrol.study.front import front_positions, hypervolume
from memcontrol.study.ledger import Ledger
from memcontrol.study.references import FREEZE, FULL
from memcontrol.study.rungs import CHECKPOINTS, records
from memcontrol.study.shared import was_interrupted
from memcontrol.study.trial import Laboratory

VERSIONED = ("memcontrol", "torch", "diffusers", "optuna", "accelerate")


@dataclass(frozen=True)
class Scored:
    """A candidate with every score, at its end or at a checkpoint.

    Attributes:
        at: steps of a checkpoint; None for the end.
        of: steps of its whole training.
    """

    trial: FrozenTrial
    scores: dict[str, Score]
    at: int | None = None
    of: int | None = None


def scored_candidates(trials: Sequence[FrozenTrial]) -> list[Scored]:
    """Each completed trial and, of completed and pruned ones, each checkpoint that was scored as whole ones are."""
    found = []
    for trial in trials:
        if trial.state not in COUNTED:
            continue
        for known in trial.user_attrs.get(CHECKPOINTS, []):
            scores = {name: Score.from_json(content) for name, content in known["scores"].items()}
            found.append(Scored(trial, scores, known["steps"], known["of"]))
        if trial.state == TrialState.COMPLETE:
            found.append(Scored(trial, trial_scores(trial)))
    return found


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
    trials = ledger.trials()
    rows = [_row(trial, ledger, names, scales, config.scoring) for trial in trials]
    strengths = laboratory.candidates.mitigations.names
    columns = ["number", "state", "mask", "learning_rate", *strengths, *names, "reward", "seconds", "worker", "error"]
    if config.search.rungs:
        columns.append("steps")
        for row, trial in zip(rows, trials, strict=True):
            row["steps"] = trial.user_attrs.get("steps", "")
    folder.write_trials(columns, rows)


def _row(
    trial: FrozenTrial,
    ledger: Ledger,
    names: Sequence[str],
    scales: dict[str, float] | None,
    scoring: ScoringConfig,
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
        value = reward(scores, scales, scoring.weights)
        row |= {name: scores[name].value for name in names} | {"reward": "" if value is None else value}
    if trial.state == TrialState.PRUNED:
        row |= zip(scoring.objectives, records(trial.user_attrs)[-1].values, strict=True)
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
    trials = ledger.trials()
    candidates = scored_candidates(trials)
    points = objective_points([one.scores for one in candidates], objectives)
    front = front_positions(points)
    for i, one in enumerate(candidates):
        path = folder.mask(one.trial.number, one.at)
        # Checkpoints that are not on the front are no candidates of their own.
        if not path.exists() and (one.at is None or i in front):
            path.parent.mkdir(exist_ok=True)
            trial_mask(one, laboratory, ledger, folder).save(path)
    references = ledger.references()
    worst = _reference_point(references, objectives)
    states = [("interrupted" if was_interrupted(trial) else trial.state.name.lower()) for trial in trials]
    content: dict[str, Any] = {
        "schema": FRONT_SCHEMA,
        "objectives": [{"name": name, "better": direction(name)} for name in objectives],
        "budget": ledger.budget,
        "sampler": ledger.proposer.sampler,
        "seed": laboratory.config.seed,
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "references": references,
        "front": [_member(candidates[i], ledger, folder) for i in front],
        "hypervolume": None if worst is None else hypervolume(points, worst),
        "reference_point": None if worst is None else worst.tolist(),
    }
    content = with_confirmed(content, read_confirmation(folder))
    folder.write_json(folder.front, content)
    return content


def _member(one: Scored, ledger: Ledger, folder: RunFolder) -> dict[str, Any]:
    candidate, number = ledger.proposer.candidate(one.trial.params), one.trial.number
    trained = ledger.proposer.space.trained(candidate.levels)
    return {
        "mask": str(folder.mask(number, one.at).relative_to(folder.path)),
        "trial": number,
        "bits": candidate.mask,
        "trains": [group.name for group in trained],
        "numel": sum(group.numel for group in trained),
        "learning_rate": candidate.learning_rate,
        "mitigations": list(ledger.proposer.space.mitigation_texts(candidate)),
        "steps": candidate.steps if one.at is None else one.at,
        **({} if one.of is None else {"of": one.of}),
        "scores": {name: score.to_json() for name, score in one.scores.items()},
    }


def _reference_point(references: dict[str, Any], objectives: tuple[str, ...]) -> NDArray[np.float64] | None:
    """The worst value of each objective over all references; None until there is one."""
    scored = [
        {n: Score.from_json(c) for n, c in point["scores"].items()}
        for points in references.values()
        for point in points
    ]
    return objective_points(scored, objectives).max(axis=0) if scored else None


def trial_mask(one: Scored, laboratory: Laboratory, ledger: Ledger, folder: RunFolder) -> Mask:
    """The self-describing mask of a completed trial, or of a checkpoint: that says where in which schedule it was."""
    candidate, space = ledger.proposer.candidate(one.trial.params), ledger.proposer.space
    chosen = [group.at(level or 1) for group, level in zip(space.groups, candidate.levels, strict=True)]
    at = "" if one.at is None else f"-at-{one.at}"
    return Mask.build(
        laboratory.space,
        [*chosen, *space.always],
        [*map(bool, candidate.levels), *([True] * len(space.always))],
        model=laboratory.model,
        unet_numel=sum(parameter.numel() for parameter in laboratory.frozen.unet.parameters()),
        learning_rate=candidate.learning_rate,
        name=f"{laboratory.dataset.name}-{laboratory.space.name}-{one.trial.number:03d}{at}",
        scores={name: score.to_json() for name, score in one.scores.items()},  # type: ignore[misc]
        provenance=_provenance(one, laboratory, ledger, folder),
    )


def _provenance(one: Scored, laboratory: Laboratory, ledger: Ledger, folder: RunFolder) -> dict[str, Any]:
    candidate, dataset, config = ledger.proposer.candidate(one.trial.params), laboratory.dataset, laboratory.config
    # `finetune` takes these settings: with `stop`, it breaks off the same schedule at the same step.
    config = config.model_copy(update={"tuning": config.tuning.model_copy(update={"stop": one.at})})
    return {
        "data": {"name": dataset.name, "n": len(dataset.training), "sha256": laboratory.data_fingerprint},
        "run": folder.path.name,
        "trial": one.trial.number,
        "seed": config.seed,
        "steps": candidate.steps if one.at is None else one.at,
        **({} if one.of is None else {"of": one.of}),
        "settings": config.model_dump(mode="json", include={"data", "tuning", "sampling"})
        | {"mitigations": list(ledger.proposer.space.mitigation_texts(candidate))},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }

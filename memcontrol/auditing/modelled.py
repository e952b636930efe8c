"""Scores that ask the model itself, with their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memcontrol.attacks.membership import ATTACKS
from memcontrol.attacks.noise import noise_magnitudes
from memcontrol.auditing.config import AuditConfig
from memcontrol.auditing.document import Control
from memcontrol.auditing.extracting import ExtractionFound, attacked
from memcontrol.auditing.flags import control, membership_flagged
from memcontrol.auditing.imaged import Found
from memcontrol.auditing.plan import Plan
from memcontrol.auditing.subject import OnStep, Subject
from memcontrol.data.images import ImageSet
from memcontrol.errors import TooFewImages
from memcontrol.measures import MEASURES
from memcontrol.pipeline import FrozenPipeline
from memcontrol.score import Attacker, ModelEvidence, Score, parse_name


@dataclass(frozen=True)
class ModelFound:
    """Scores that asked the model.

    Attributes:
        magnitudes: training caption -> mean noise magnitude of its measured training images.
        extracted: rules -> keys of the training images given back.
    """

    found: Found = field(default_factory=Found)
    magnitudes: Mapping[str, float] = field(default_factory=dict)
    extracted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def model_findings(subject: Subject, plan: Plan, config: AuditConfig, *, kept: Path, on_step: OnStep) -> ModelFound:
    """Every score in the plan that asks the model; nothing where there is none.

    Args:
        kept: a folder for finished prompts of extraction attacks.
    Raises:
        DivergedError: the model predicts NaN or infinity.
        RunError: `kept` holds another attack.
    """
    if subject.frozen is None:
        return ModelFound()
    extraction, others = _parted(plan.model)
    attacker = _attacker(subject, subject.frozen, others, config)
    on_step("attack", 0, 1)
    evidence = attacker.evidence()
    scores = attacker.scores(evidence)
    controls = _controls(attacker, evidence, first(subject.dataset.heldout.confirmation, config), subject.frozen)
    on_step("attack", 1, 1)
    flags = _flags(scores, evidence)
    extracted, missing = _extracted(subject, extraction, config, kept, on_step)
    for name, result in extracted.items():
        full = f"extraction@{name}"
        scores[full], flags[full], controls[full] = _extraction_score(result), result.flagged, result.control
    return ModelFound(
        Found({name: scores[name] for name in plan.model if name in scores}, flags, controls, missing),
        _by_caption(attacker, evidence),
        {name: result.keys for name, result in extracted.items()},
    )


def first(images: ImageSet, config: AuditConfig) -> ImageSet:
    """As many of the images as an attack is made on."""
    return images.take(range(min(len(images), config.scoring.attack.images)))


def _parted(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Rules of extraction, and the names of the other scores."""
    extraction = [parse_name(name)[1] for name in names if parse_name(name)[0] == "extraction"]
    return extraction, [name for name in names if parse_name(name)[0] != "extraction"]


def _attacker(subject: Subject, frozen: FrozenPipeline, names: Sequence[str], config: AuditConfig) -> Attacker:
    return Attacker(
        frozen,
        subject.dataset,
        subject.real,
        names,
        config=config.scoring.attack,
        sampling=config.sampling,
        seed=config.seed,
    )


def _controls(
    attacker: Attacker, evidence: ModelEvidence, honest: ImageSet, frozen: FrozenPipeline
) -> dict[str, Control]:
    """The floor of each score: held-out images that nothing else uses in the place of training images.

    No copies can be planted in a model without training it, so there is no ceiling.
    """
    membership = {
        name: (ATTACKS[name](frozen, honest, seed=attacker.seed), others)
        for name, (_, others) in evidence.membership.items()
    }
    magnitudes = evidence.magnitudes
    if magnitudes.size:
        magnitudes = noise_magnitudes(frozen, honest, seed=attacker.seed)
    floors = attacker.scores(ModelEvidence(membership, magnitudes, honest.captions))
    flags = _flags(floors, ModelEvidence(membership))
    return {
        name: control(floor, None, flagged_floor=flags[name], flagged_ceiling=None) for name, floor in floors.items()
    }


def _flags(scores: Mapping[str, Score], evidence: ModelEvidence) -> dict[str, bool | None]:
    """Whether each score calls the first of two sets members; None for noise magnitude, and for the attack by it.

    That attack points either way: on Stable Diffusion members move more with their caption than others, on a small
    model that was overfitted they move less (`experiments/measures_agree`).
    """
    flags: dict[str, bool | None] = {}
    for name, score in scores.items():
        measure, attack = parse_name(name)
        known = MEASURES[measure].family == "membership" and attack != "noise"
        flags[name] = membership_flagged(measure, score, *evidence.membership[attack]) if known else None
    return flags


def _extracted(
    subject: Subject, names: Sequence[str], config: AuditConfig, kept: Path, on_step: OnStep
) -> tuple[dict[str, ExtractionFound], dict[str, str]]:
    found: dict[str, ExtractionFound] = {}
    missing: dict[str, str] = {}
    if subject.frozen is None:
        return found, missing
    attacker = _attacker(subject, subject.frozen, [], config)
    for name in names:
        try:
            found[name] = attacked(subject, attacker, name, config, kept=kept, on_step=on_step)
        except TooFewImages as error:
            missing[f"extraction@{name}"] = str(error)
    return found, missing


def _extraction_score(result: ExtractionFound) -> Score:
    summary = result.summary
    note = (
        f"{summary.prompts} prompts, {summary.extracting_prompts} of which gave training images back and "
        f"{summary.suspected_prompts} repeated an image; {summary.reachable} training images have these captions"
    )
    better = MEASURES["extraction"].better
    return Score(summary.share, summary.low, summary.high, summary.generations, better, note=note)


def _by_caption(attacker: Attacker, evidence: ModelEvidence) -> dict[str, float]:
    if not evidence.magnitudes.size:
        return {}
    means = evidence.magnitudes.mean(axis=1)
    captions = np.array(attacker.members.captions, dtype=str)
    return {str(caption): float(means[captions == caption].mean()) for caption in np.unique(captions)}

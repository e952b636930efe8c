"""Sentences on a full-length training: what differs from the search, what is not saved, what DP-SGD amounts to."""

from __future__ import annotations

from collections.abc import Iterator

from memcontrol.data.identity import dataset_fingerprint
from memcontrol.data.images import Dataset
from memcontrol.finetuning import TrainingBatches
from memcontrol.mask import Mask
from memcontrol.mitigations.differential_privacy import DifferentialPrivacy
from memcontrol.mitigations.inference import InferenceNoise, InferenceOptimisation
from memcontrol.mitigations.naming import load_mitigation
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.releasing.config import mask_mitigations

DELTA = 1e-5
"""For which epsilon is told, unless a tenth of one record's share is less."""


def mitigation_notes(mask: Mask, chosen: tuple[str, ...]) -> list[str]:
    """Under what is trained, how that differs from what the mask was found under, and what cannot be saved."""
    found, notes = mask_mitigations(mask), list[str]()
    if chosen and chosen == found:
        notes.append(
            f"trained under {', '.join(chosen)}, as mask {mask.name} was found: --mitigation none leaves it out"
        )
    elif chosen:
        notes.append(f"trained under {', '.join(chosen)}")
    if chosen != found and mask.scores:
        notes.append(
            f"mask {mask.name} was found under {', '.join(found) or 'no mitigation'}: its scores do not hold here"
        )
    unsaved = [text for text in chosen if isinstance(load_mitigation(text), InferenceNoise | InferenceOptimisation)]
    if unsaved:
        notes.append(
            f"{', '.join(unsaved)} works while sampling and is not in the saved pipeline: diffusers samples without"
        )
    return notes


def data_note(mask: Mask, dataset: Dataset) -> list[str]:
    """A caution where the mask was found on other images."""
    found = mask.provenance.get("data", {})
    if not found or found.get("sha256") == dataset_fingerprint(dataset):
        return []
    return [f"mask {mask.name} was found on other images ({found.get('name')}): its scores do not hold for these"]


def privacy_notes(plan: MitigationPlan, batches: TrainingBatches, steps: int, monitor: MonitorConfig) -> Iterator[str]:
    """What DP-SGD's accountant says after so many steps, under its conditions; nothing without DP-SGD."""
    delta = min(DELTA, 0.1 / int(batches.repeats.sum()))
    for mitigation in plan.chosen:
        if isinstance(mitigation, DifferentialPrivacy) and mitigation.noise:
            yield f"DP-SGD: {mitigation.epsilon(batches, steps=steps, delta=delta)}"
            if monitor.stops:
                yield (
                    "That epsilon does not cover when training ended: that was decided by comparing generated images "
                    "with the training images."
                )

"""The extraction attack of an audit, and the same attack on made-up generations whose answer is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memcontrol.attacks.controls import extraction_controls
from memcontrol.attacks.extraction import ExtractionAttack, examine_unconditional
from memcontrol.attacks.records import PromptResult
from memcontrol.attacks.rules import CALIBRATION_LIMIT, RULES, ExtractionRules
from memcontrol.attacks.summary import Extraction, summarise
from memcontrol.auditing.config import AuditConfig
from memcontrol.auditing.document import Control
from memcontrol.auditing.flags import control, more_than_chance
from memcontrol.auditing.imaged import planted_set
from memcontrol.auditing.subject import OnStep, Subject
from memcontrol.errors import MemControlError
from memcontrol.measures import MEASURES
from memcontrol.metrics.copies import HONEST_SHARE
from memcontrol.metrics.intervals import binomial_interval
from memcontrol.score import Attacker, Score

CONTROL_STREAM = 402
"""Sets the controls' random numbers apart from others of the same seed."""


@dataclass(frozen=True)
class ExtractionFound:
    """What one attack gave.

    Attributes:
        keys: of the training images given back.
    """

    summary: Extraction
    keys: tuple[str, ...]
    flagged: bool
    control: Control


def attacked(
    subject: Subject, attacker: Attacker, name: str, config: AuditConfig, *, kept: Path, on_step: OnStep
) -> ExtractionFound:
    """One extraction attack with its controls; finished prompts stay in `kept`.

    Raises:
        MemControlError: there is no model, or too few images to calibrate the rules on.
        RunError: `kept` holds another attack.
    """
    if subject.frozen is None:
        raise MemControlError("extraction asks a model, and images alone were given: give a model")
    rules = attacker.rules(name)
    attack = ExtractionAttack(
        subject.frozen, attacker.prompts, subject.real.training, rules, config.sampling, config.seed
    )
    total = len(attacker.prompts) if subject.takes_text else 1
    results: list[PromptResult] = []
    for result in attack.results(kept / f"extraction-{name}.jsonl"):
        results.append(result)
        on_step(f"extract ({name})", len(results), total)
    summary = summarise(results, subject.dataset.training.captions)
    keys = tuple(subject.dataset.training.keys[i] for i in summary.extracted)
    controls = _control if subject.takes_text else _unconditional_control
    flag = extraction_flagged(subject, rules, summary)
    return ExtractionFound(summary, keys, flag, controls(subject, rules, config.seed))


def extraction_flagged(subject: Subject, rules: ExtractionRules, summary: Extraction) -> bool:
    """Whether the attack calls the model a copier.

    With prompts, one training image given back is enough: a group of near-identical generations must come first. An
    unconditional model's images are judged one by one, and some honest one lies below any bound: there it is more
    images than honest ones would have.
    """
    if subject.takes_text:
        return bool(summary.extracted)
    close = round(summary.close_share * summary.generations)
    return more_than_chance(close, summary.generations, honest_chance(subject, rules))


def honest_chance(subject: Subject, rules: ExtractionRules) -> float:
    """How often the rules take one honest image for a training image, as far as they were calibrated."""
    if subject.takes_text or RULES[rules.name].ratio is not None:
        return HONEST_SHARE
    return 1 / min(len(subject.real.copying), CALIBRATION_LIMIT)


def _control(subject: Subject, rules: ExtractionRules, seed: int) -> Control:
    """Up to 32 training images given as generations of altered copies, and as many held-out ones.

    The attack is handed groups of one image that it must tell by verification alone, which lets one honest image in a
    hundred through: the floor is flagged where more were let through than that.
    """
    captions = subject.dataset.heldout.confirmation.captions
    rng = np.random.default_rng([seed, CONTROL_STREAM])
    found = extraction_controls(subject.real.training, subject.control, captions, rules, rng=rng)
    told = (
        f"{found.unseen} held-out images given as repeated generations, {found.unseen_extracted} of them taken for "
        f"training images; {found.honest} captions with their own held-out images, {found.honest_suspected} suspected"
    )
    return control(
        _share(found.unseen_extracted, found.unseen, told),
        _share(found.planted_extracted, found.planted, "training images given as repeated generations"),
        flagged_floor=more_than_chance(found.unseen_extracted, found.unseen) or found.honest_suspected > 0,
        # A copier of one image alone must be found: an attack that misses most of what is planted is none.
        flagged_ceiling=2 * found.planted_extracted > found.planted,
    )


def _unconditional_control(subject: Subject, rules: ExtractionRules, seed: int) -> Control:
    """Planted copies and held-out images in the place of the generated ones; shares are of images."""
    chance, training = honest_chance(subject, rules), subject.real.training
    ends = []
    for images in (subject.control[: len(subject.generated)], planted_set(subject, seed)):
        result = examine_unconditional(np.asarray(images), training, rules)
        flag = more_than_chance(result.close, result.generations, chance)
        ends.append((_share(result.close, result.generations, "share of images, not of training images"), flag))
    (floor, low), (ceiling, high) = ends
    return control(floor, ceiling, flagged_floor=low, flagged_ceiling=high)


def _share(count: int, total: int, note: str) -> Score:
    low, high = binomial_interval(count, total)
    return Score(count / total, low, high, total, MEASURES["extraction"].better, note=note)

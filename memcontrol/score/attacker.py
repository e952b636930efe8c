"""Scores that ask the model itself: attacks on a pipeline's U-Net as it now stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memcontrol.attacks.extraction import ExtractionAttack
from memcontrol.attacks.membership import ATTACKS
from memcontrol.attacks.noise import noise_magnitudes
from memcontrol.attacks.rules import RULES, ExtractionRules, calibrate
from memcontrol.attacks.summary import Extraction, summarise
from memcontrol.config import AttackConfig, SamplingConfig
from memcontrol.data.images import Dataset, ImageSet
from memcontrol.measures import MEASURES
from memcontrol.metrics.intervals import mean_interval
from memcontrol.metrics.membership import auc, tpr_at_fpr
from memcontrol.pipeline import FrozenPipeline
from memcontrol.sampling import AtInference
from memcontrol.score.naming import from_model, parse_name
from memcontrol.score.real import RealImages
from memcontrol.score.value import Score

Float64 = NDArray[np.float64]
NONMEMBERS = 4
"""For each member, at most, where rare false positives are not asked for.

By DeLong's variance, where the scores of both vary alike, however many more would make the interval of an AUC a tenth
narrower.
"""
FALSE_POSITIVES = {"membership_tpr1": 0.01, "membership_tpr01": 0.001}


@dataclass(frozen=True)
class ModelEvidence:
    """What attacks on a model gave, before it is made into scores.

    Attributes:
        membership: attack -> scores of training images and of held-out ones, higher where more likely a member.
        magnitudes: `(N, T)` text-conditional noise magnitudes of training images; empty where not asked for.
        captions: `(N,)`, of the images that `magnitudes` are of.
        extraction: name of the rules -> what was extracted.
    """

    membership: Mapping[str, tuple[Float64, Float64]] = field(default_factory=dict)
    magnitudes: Float64 = field(default_factory=lambda: np.empty((0, 0)))
    captions: tuple[str, ...] = ()
    extraction: Mapping[str, Extraction] = field(default_factory=dict)


class Attacker:
    """Scores of a pipeline's U-Net as it now stands; a pure function of its weights.

    Args:
        frozen: the pipeline, whose U-Net may be tuned.
        dataset: members are its training images, non-members its held-out images for copying.
        real: the same images as the autoencoder gives them back.
        names: scores to compute; those that ask no model are left to `Scorer`.
        sampling: how images are generated for extraction.
        seed: of all noise.
    Raises:
        MemControlError: a name that does not exist.
    """

    def __init__(
        self,
        frozen: FrozenPipeline,
        dataset: Dataset,
        real: RealImages,
        names: Sequence[str],
        *,
        config: AttackConfig,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self.frozen, self.dataset, self.real = frozen, dataset, real
        self.config, self.sampling, self.seed = config, sampling, seed
        self.names = tuple(name for name in dict.fromkeys(names) if from_model(name))
        self.members = first_images(dataset.training, config.images)
        self.nonmembers = first_images(dataset.heldout.copying, config.images)
        self.prompts = common_captions(dataset, config.prompts)
        self._rules: dict[str, ExtractionRules] = {}

    def __call__(self, inference: AtInference | None = None) -> dict[str, Score]:
        """Every score, in the order of `names`; `inference` as in `evidence`."""
        return self.scores(self.evidence(inference))

    def only(self, names: Sequence[str]) -> Attacker:
        """An attacker for some of these scores, which shares what is calibrated."""
        part = copy(self)
        part.names = tuple(name for name in self.names if name in names)
        return part

    def evidence(self, inference: AtInference | None = None) -> ModelEvidence:
        """Run the attacks that the scores need.

        Args:
            inference: the mitigation that images are sampled under, by the extraction attack as well.

        Raises:
            ModelError: an attack that needs text on a model that takes none.
            DivergedError: the model predicts NaN or infinity.
        """
        parsed = [parse_name(name) for name in self.names]
        wanted = {MEASURES[measure].family: set[str]() for measure, _ in parsed}
        for measure, source in parsed:
            wanted[MEASURES[measure].family].add(source)
        few = not any(measure in FALSE_POSITIVES for measure, _ in parsed)
        membership = {name: self._membership(name, few=few) for name in sorted(wanted.get("membership", ()))}
        magnitudes, captions = np.empty((0, 0)), self.members.captions
        if "noise" in wanted:
            magnitudes = noise_magnitudes(self.frozen, self.members, seed=self.seed)
        extraction = {name: self.extraction(name, inference=inference) for name in sorted(wanted.get("extraction", ()))}
        return ModelEvidence(membership, magnitudes, captions, extraction)

    def scores(self, evidence: ModelEvidence) -> dict[str, Score]:
        """Every score of what `evidence` gave."""
        return {name: self._score(*parse_name(name), evidence) for name in self.names}

    def rules(self, name: str) -> ExtractionRules:
        """The rules of an extraction attack, their distances calibrated on held-out images where that is needed."""
        if name not in self._rules:
            rules = RULES[name]
            if self.config.generations is not None:
                rules = replace(rules, generations=self.config.generations)
            if rules.edge is None or rules.verification is None:
                captions = self.dataset.heldout.copying.captions
                rules = calibrate(rules, self.real.training, self.real.copying, captions)
            self._rules[name] = rules
        return self._rules[name]

    def extraction(self, name: str, record: Path | None = None, *, inference: AtInference | None = None) -> Extraction:
        """The extraction attack on this model.

        Args:
            name: of the rules.
            record: a file of JSON lines that keeps finished prompts, so that an interrupted attack goes on.
            inference: as in `evidence`.
        """
        attack = ExtractionAttack(
            self.frozen, self.prompts, self.real.training, self.rules(name), self.sampling, self.seed, inference
        )
        return summarise(list(attack.results(record)), self.dataset.training.captions)

    def _score(self, measure: str, source: str, evidence: ModelEvidence) -> Score:
        better = MEASURES[measure].better
        if measure == "extraction":
            found = evidence.extraction[source]
            return Score(found.share, found.low, found.high, found.generations, better)
        if measure.startswith("noise_magnitude"):
            means = evidence.magnitudes.mean(axis=1)
            value, low, high = mean_interval(means)
            if measure == "noise_magnitude":
                return Score(value, low, high, len(means), better)
            captions = np.array(evidence.captions, dtype=str)
            largest = max(float(means[captions == caption].mean()) for caption in np.unique(captions))
            return Score(largest, largest, largest, len(means), better, note="a maximum over captions: no interval")
        members, others = evidence.membership[source]
        count = len(members) + len(others)
        if measure == "membership_auc":
            return Score(*auc(members, others), count, better)
        rate = tpr_at_fpr(members, others, FALSE_POSITIVES[measure])
        return Score(rate.value, rate.low, rate.high, count, better, note=rate.note)

    def _membership(self, attack: str, *, few: bool) -> tuple[Float64, Float64]:
        others = first_images(self.nonmembers, NONMEMBERS * len(self.members)) if few else self.nonmembers
        run = ATTACKS[attack]
        return run(self.frozen, self.members, seed=self.seed), run(self.frozen, others, seed=self.seed)


def first_images(images: ImageSet, count: int) -> ImageSet:
    """The first `count` images, or all where there are no more; sets are in random order."""
    return images if len(images) <= count else images.take(range(count))


def common_captions(dataset: Dataset, count: int) -> list[str]:
    """The distinct training captions that most training images have, repeats counted, at most `count` of them."""
    weights: Counter[str] = Counter()
    for caption, repeats in zip(dataset.training.captions, dataset.repeats.tolist(), strict=True):
        weights[caption] += repeats
    return [caption for caption, _ in sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:count]]

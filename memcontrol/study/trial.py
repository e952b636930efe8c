"""One candidate's scores: tune its groups, sample, compare with held-out images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from accelerate import Accelerator

from memcontrol.cache import Cache
from memcontrol.config import RunConfig, Rung, flattened
from memcontrol.data import load_dataset
from memcontrol.data.identity import dataset_fingerprint
from memcontrol.data.images import Dataset, Pixels
from memcontrol.errors import MemControlError
from memcontrol.finetuning import Step, training_batches
from memcontrol.finetuning.state import TrainingState
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.mask_records import ModelIdentity
from memcontrol.methods import Resources, Tuning, tuned
from memcontrol.methods.decompositions import Decompositions
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.pipeline import FrozenPipeline, load_pipeline
from memcontrol.sampling import AtInference, drawn_prompts, sample
from memcontrol.score import (
    Attacker,
    RealImages,
    Score,
    Scorer,
    check_scoring,
    finite,
    is_raw,
    real_images,
    scorer_of,
    shortage,
)
from memcontrol.space import LogRange, SearchSpace, load_space
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.kept_training import KeptTraining
from memcontrol.tracing import Traces

OnStep = Callable[[str, int, int], None]
"""Called with a phase, the step done, and the number of steps."""


@dataclass(frozen=True)
class Evaluation:
    """What one tuning gave.

    Attributes:
        images: the generated images, `(N, H, W, 3)`.
        steps: optimizer steps behind them.
        loss: mean training loss over the last tenth of the steps; None where nothing trained.
        seconds: wall time since the tuning began.
    """

    scores: dict[str, Score]
    images: Pixels
    steps: int
    loss: float | None
    seconds: float


@dataclass(frozen=True)
class Reached:
    """A candidate at a rung.

    Attributes:
        of: steps of the whole training.
        evaluation: its objectives by the rung's images.
        whole: gives every score by all images, while the candidate is being judged.
    """

    rung: Rung
    of: int
    evaluation: Evaluation
    whole: Callable[[], Evaluation]


Judge = Callable[[Reached], bool]
"""Says whether a candidate goes on."""


def rate_range(space: SearchSpace) -> tuple[float, float]:
    """Lowest and highest learning rate of a space; the same twice where it is fixed."""
    rate = space.learning_rate
    return (rate.low, rate.high) if isinstance(rate, LogRange) else (rate, rate)


def drawn_dataset(config: RunConfig, frozen: FrozenPipeline) -> Dataset:
    """A run's data set, at its model's resolution and with its own seed."""
    seed = config.seed if config.data.seed is None else config.data.seed
    return load_dataset(config.data, resolution=frozen.resolution, seed=seed)


def candidate_space(
    config: RunConfig, space: SearchSpace, unet: torch.nn.Module, mitigations: MitigationChoices
) -> CandidateSpace:
    """All candidates of a run on a U-Net, whose weights need not be loaded.

    Raises:
        SpaceError: the space does not fit the U-Net.
    """
    groups = parameter_groups(space, unet)
    return CandidateSpace(
        groups=tuple(group for group in groups if not group.always),
        always=tuple(group for group in groups if group.always),
        rates=RateGrid.between(*(config.learning_rate or rate_range(space))),
        steps=config.tuning.steps,
        full_rate=space.full_learning_rate,
        mitigations=mitigations,
    )


class Laboratory:
    """Everything that all trials of a run share, loaded once: pipeline, data, encoded latents and captions, scorer.

    Args:
        frozen, dataset: the configuration's, where they are loaded already.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        cache: Cache,
        device: str,
        frozen: FrozenPipeline | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        self.config = config
        check_scoring(config.scoring.objectives + config.scoring.reported, config.scoring)
        choices = MitigationChoices.of(config.mitigations)
        self.space = load_space(config.space)
        self.frozen = frozen or load_pipeline(config.model, cache=cache, device=device)
        self.dataset = dataset or drawn_dataset(config, self.frozen)
        self.candidates = candidate_space(config, self.space, self.frozen.unet, choices)
        self.mitigations = choices.plan(choices.middle)
        for indices in choices.all():
            choices.plan(indices).check(self.frozen, self.dataset)
        with Decompositions.start(self.frozen.unet, self._shifted(), cache) as decompositions:
            self.batches = training_batches(self.frozen, self.dataset, config.tuning, seed=config.seed)
            self.prompts = drawn_prompts(self.dataset.training.captions, config.sampling.images, config.seed)
            judged = self.dataset if config.scoring.held_out == "search" else self.dataset.on_confirmation()
            real = real_images(self.frozen, judged)
            self.scorer, self.attacker = self._scorer(real), self._attacker(real, judged)
            self._check_rungs()
        self.resources = Resources(cache, config.seed, decompositions.wait())
        self.traces = Traces(self.frozen.unet)
        self.accelerator = self._new_accelerator()

    def _shifted(self) -> tuple[str, ...]:
        """Weights that some candidate trains by their singular values."""
        groups = (*self.candidates.groups, *self.candidates.always)
        return tuple(name for group in groups if group.method == "svdiff" for name in group.parameters)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the data, and on what of it and of the settings the model does not use."""
        unused = self.frozen.notes(self.dataset.training.captions, self.config.sampling.guidance)
        return (*self.dataset.notes, *unused)

    @cached_property
    def model(self) -> ModelIdentity:
        """The base model's identity."""
        return ModelIdentity.of(self.frozen.unet, self.config.model)

    @cached_property
    def data_fingerprint(self) -> str:
        """The data set's identity."""
        return dataset_fingerprint(self.dataset)

    @cached_property
    def identity(self) -> dict[str, str]:
        """What must be the same for two trials to be comparable, each by a name that a user knows."""
        content = self.config.model_dump(mode="json", exclude={"search": {"budget", "sampler"}, "confirm": True})
        return flattened(content) | {
            "architecture": self.model.architecture,
            "weights": self.model.weights,
            "data content": self.data_fingerprint,
            "space content": self.space.sha256,
        }

    @property
    def score_names(self) -> tuple[str, ...]:
        """Objectives, then what else is reported.

        Where the data has other images of the training subjects, each `copy_gap` has its twin against those, since
        splitting by subject confounds identity with copying. Where the model has no autoencoder, scores of raw images
        would repeat the others, and only objectives among them stay.
        """
        reported = (name for name in self.config.scoring.reported if self.frozen.has_autoencoder or not is_raw(name))
        named = (*self.config.scoring.objectives, *reported)
        gaps = [name for name in named if name.startswith("copy_gap@") and self.dataset.same_subjects is not None]
        return tuple(dict.fromkeys([*named, *(name.replace("copy_gap@", "copy_gap_same_subjects@") for name in gaps)]))

    def _scorer(self, real: RealImages) -> Scorer:
        config = self.config
        return scorer_of(
            self.frozen, real, self.score_names, config.scoring, images=config.sampling.images, seed=config.seed
        )

    def _attacker(self, real: RealImages, judged: Dataset) -> Attacker:
        return Attacker(
            self.frozen,
            judged,
            real,
            self.score_names,
            config=self.config.scoring.attack,
            sampling=self.config.sampling,
            seed=self.config.seed,
        )

    def _check_rungs(self) -> None:
        """Refuse rungs at which an objective could not be measured."""
        scoring = self.config.scoring
        for rung in self.config.search.rungs:
            for name in scoring.objectives:
                # Of held-out images there are enough for the whole score, which was checked before.
                short = shortage(name, scoring.components, generated=rung.images, reference=sys.maxsize)
                if short is not None:
                    raise MemControlError(f"rung at {rung.share:g} of the steps: {short.reason}: sample more there")

    def _new_accelerator(self) -> Accelerator:
        """One without another training's optimizer and loss scale."""
        return Accelerator(mixed_precision=self.config.tuning.mixed_precision, cpu=self.frozen.device.type == "cpu")

    def _forget_training(self) -> None:
        """Let the optimizer go, and what it holds."""
        if self.frozen.device.type != "cpu":
            # References in a circle hold a card's memory until garbage is collected, which takes 0.3 s.
            self.accelerator.free_memory()
        self.accelerator = self._new_accelerator()

    def untuned(self, on_step: OnStep) -> Evaluation:
        """Scores of the base model as it is."""
        with self.traces.replayed():
            return self._scored(0, None, time.monotonic(), on_step)

    def evaluate(
        self,
        groups: tuple[ParameterGroup, ...],
        rate: float | None,
        steps: int,
        on_step: OnStep,
        *,
        mitigations: MitigationPlan | None = None,
        stop: int | None = None,
        judge: Judge | None = None,
        kept: KeptTraining | None = None,
    ) -> Evaluation:
        """Scores after tuning `groups` for `steps` steps at a peak learning rate of `rate`.

        Args:
            mitigations: the run's own, searched strengths at their middle, unless given. Whatever they leave out of
                training, generated images are compared with all of the training set.
            stop: break off after so many of the steps, as a checkpoint was; at the last unless given.
            judge: asked at every rung of the configuration; the evaluation is that of the rung where it says no. To a
                candidate that goes on it makes no difference. Not asked under ensembles, which have no model to sample
                from between rounds.
            kept: where the training is kept as it goes on, and begins where it was kept.
        """
        if not groups or rate is None:
            return self.untuned(on_step)
        plan = self.mitigations if mitigations is None else mitigations
        began, taken = time.monotonic(), list[Step]()
        before = [] if kept is None else kept.losses[:-1]  # the step that was kept is yielded again
        state = None if kept is None else kept.state
        config = plan.tuning(self.config.tuning.model_copy(update={"steps": steps, "stop": stop}))
        rungs = {} if judge is None or plan.in_shards else self._rungs(config.steps)
        try:
            with (
                tuned(self.frozen.unet, groups, self.resources) as tuning,
                self.traces.replayed(tuning.tensors),
                closing(self._steps(plan, tuning.parameters, rate, steps, stop, state)) as training,
            ):
                for step in training:
                    taken.append(step)
                    on_step("tune", step.number, stop or steps)
                    if judge is not None and step.number in rungs:
                        with self._finished(step, tuning):
                            reached = self._reached(rungs[step.number], config.steps, taken, plan, began, on_step)
                            if not judge(reached):
                                return reached.evaluation
                    if kept is not None:
                        kept.keep_if_due(step.number, [*before, *(one.loss for one in taken)])
                with self._finished(step, tuning):
                    inference = plan.sampler(self.frozen, self.dataset, self.config.sampling, seed=self.config.seed)
                    loss = _recent_loss(taken, before)
                    return self._scored(len(before) + len(taken), loss, began, on_step, inference)
        finally:
            self._forget_training()

    @contextmanager
    def _finished(self, step: Step, tuning: Tuning) -> Iterator[None]:
        """Inside, the U-Net is what a training gave so far, to be sampled from."""
        with step.averaged(), tuning.folded(), self.traces.replayed():
            yield

    def _rungs(self, steps: int) -> dict[int, Rung]:
        """Where in so many steps each rung is; of two at the same step the later, and none at the last."""
        at = {max(1, round(rung.share * steps)): rung for rung in self.config.search.rungs}
        return {step: rung for step, rung in at.items() if step < steps}

    def _reached(
        self, rung: Rung, of: int, taken: Sequence[Step], plan: MitigationPlan, began: float, on_step: OnStep
    ) -> Reached:
        """A candidate at a rung, its model the one to be sampled from."""
        steps, loss, objectives = taken[-1].number, _recent_loss(taken), self.config.scoring.objectives
        inference = plan.sampler(self.frozen, self.dataset, self.config.sampling, seed=self.config.seed)
        images = self._sampled(range(rung.images), on_step, inference)
        prompts = self.prompts[: rung.images]
        scores = self._rung_scorer(images, prompts) | self._rung_attacker(inference)
        scores = finite({name: scores[name] for name in objectives})
        found = Evaluation(scores, images, steps, loss, time.monotonic() - began)
        return Reached(rung, of, found, lambda: self._scored(steps, loss, began, on_step, inference, images))

    @cached_property
    def _rung_scorer(self) -> Scorer:
        return self.scorer.only(self.config.scoring.objectives)

    @cached_property
    def _rung_attacker(self) -> Attacker:
        return self.attacker.only(self.config.scoring.objectives)

    def _steps(
        self,
        plan: MitigationPlan,
        parameters: Mapping[str, torch.nn.Parameter],
        rate: float,
        steps: int,
        stop: int | None,
        state: TrainingState | None,
    ) -> Generator[Step]:
        dataset, batches, tuning = plan.dataset(self.dataset), self.batches, self.config.tuning
        if dataset is not self.dataset:
            batches = training_batches(self.frozen, dataset, tuning, seed=self.config.seed)
        yield from plan.steps(
            self.frozen,
            dataset,
            parameters,
            batches,
            learning_rate=rate,
            config=tuning.model_copy(update={"steps": steps, "stop": stop}),
            accelerator=self.accelerator,
            state=state,
        )

    def _sampled(self, places: range, on_step: OnStep, inference: AtInference | None) -> Pixels:
        """Images of the prompts at these places."""
        batches, config = list[Pixels](), self.config.sampling
        for pixels in sample(
            self.frozen, self.prompts, config, seed=self.config.seed, inference=inference, places=places
        ):
            batches.append(pixels)
            on_step("sample", places.start + sum(map(len, batches)), places.stop)
        return np.concatenate(batches)

    def _scored(
        self,
        steps: int,
        loss: float | None,
        began: float,
        on_step: OnStep,
        inference: AtInference | None = None,
        images: Pixels | None = None,
    ) -> Evaluation:
        """Every score by all images, of which the first may be there already.

        Only whole batches of those are kept: an image depends on its batch's size, if only by rounding.
        """
        total = len(self.prompts)
        if images is None or len(images) < total:
            size = self.config.sampling.batch
            known = 0 if images is None else len(images) // size * size
            rest = self._sampled(range(known, total), on_step, inference)
            images = rest if images is None else np.concatenate([images[:known], rest])
        on_step("score", 0, 1)
        scores = self.scorer(images, self.prompts) | self.attacker(inference)
        scores = {name: scores[name] for name in self.score_names}
        return Evaluation(finite(scores), images, steps, loss, time.monotonic() - began)


def _recent_loss(taken: Sequence[Step], before: Sequence[float] = ()) -> float:
    """Mean training loss over the last tenth of the steps, of which some may have been taken in an earlier attempt."""
    losses = [*before, *(step.loss for step in taken)]
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))

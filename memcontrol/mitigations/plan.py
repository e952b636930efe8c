"""Several mitigations at once: each put in its place, around one training and its sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from accelerate import Accelerator

from memcontrol.config import SamplingConfig, TuningConfig
from memcontrol.data.images import Dataset
from memcontrol.encoders import PixelEncoder
from memcontrol.errors import MemControlError
from memcontrol.finetuning import Batches, Step, TrainingBatches, TrainingState, finetune_pipeline
from memcontrol.mitigations.caption_change import CaptionChange
from memcontrol.mitigations.deduplication import Deduplication
from memcontrol.mitigations.differential_privacy import DifferentialPrivacy
from memcontrol.mitigations.early_stopping import EarlyStopping, HeldOutLoss
from memcontrol.mitigations.embedding_noise import EmbeddingNoise
from memcontrol.mitigations.fewer_steps import FewerSteps
from memcontrol.mitigations.iet_agc import IterativeEnsemble
from memcontrol.mitigations.inference import InferenceNoise, InferenceOptimisation
from memcontrol.mitigations.naming import Mitigation, load_mitigation
from memcontrol.mitigations.own_process import of_first
from memcontrol.mitigations.privacy_accounting import check_opacus
from memcontrol.mitigations.requirements import captioned
from memcontrol.mitigations.shards import split
from memcontrol.mitigations.threshold import Threshold
from memcontrol.mitigations.weight_decay import DecayToStart
from memcontrol.pipeline import FrozenPipeline
from memcontrol.sampling import AtInference

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class MitigationPlan:
    """What is done to one training and its sampling; nothing where `chosen` is empty.

    Attributes:
        chosen: in the order in which those of the data are applied.
    Raises:
        MemControlError: two at a place that has room for one, or two that exclude each other.
    """

    chosen: tuple[Mitigation, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> MitigationPlan:
        """The plan of mitigations named as `load_mitigation` reads them.

        Raises:
            MemControlError: a name or a strength that does not exist.
        """
        return cls(tuple(map(load_mitigation, names)))

    def __post_init__(self) -> None:
        kinds = [type(mitigation) for mitigation in self.chosen]
        for kind in set(kinds):
            if kinds.count(kind) > 1 and not issubclass(kind, CaptionChange):
                raise MemControlError(f"{kinds.count(kind)} mitigations of the kind {kind.__name__}: choose one")
        if len(self._inference) > 1:
            raise MemControlError("two mitigations of the embeddings at sampling: choose one")
        private, ensemble = self._of(DifferentialPrivacy), self._of(IterativeEnsemble)
        threshold = self._of(Threshold)
        if private and (ensemble or threshold):
            raise MemControlError("DP-SGD counts every sample of every batch: leave out threshold and ensembles")
        if ensemble and threshold:
            raise MemControlError("threshold and ensembles both decide which samples count: choose one of them")
        if private and self._data:
            raise MemControlError("DP-SGD draws its own batches: leave out mitigations of captions and embeddings")

    def check(self, frozen: FrozenPipeline, dataset: Dataset) -> None:
        """Refuse, before anything is trained, what this model or these data cannot have.

        Raises:
            ModelError, DataError: a mitigation that needs captions, on a model or data without.
            MemControlError: more shards than training images.
            MissingPackageError: an optional package that a mitigation needs is not installed.
        """
        for mitigation in (*self._data, *self._of(Threshold), *self._inference):
            if not _idle(mitigation):
                pipeline = captioned(frozen, dataset, type(mitigation).__name__)
                if isinstance(mitigation, CaptionChange):
                    mitigation.fitted(pipeline, dataset.training.captions)
        for ensemble in self._of(IterativeEnsemble):
            split(len(dataset.training), ensemble.shards, seed=0)
        if self._of(DifferentialPrivacy):
            check_opacus()

    def check_training(self, config: TuningConfig, accelerator: Accelerator) -> None:
        """Refuse, likewise, settings and processes that a mitigation cannot be trained with.

        Raises:
            MemControlError: DP-SGD with accumulation, gradient checkpointing, half precision or several processes;
                early stopping of shards in several processes.
        """
        for private in self._of(DifferentialPrivacy):
            private.check(config, accelerator)
        stops = any(stopping.patience is not None for stopping in self._of(EarlyStopping))
        if stops and self.in_shards and accelerator.num_processes > 1:
            raise MemControlError(
                f"early stopping of shards in {accelerator.num_processes} processes: each would stop at a step of its "
                "own, and the others wait for it; start one process, or leave out one of the two mitigations"
            )

    def tuning(self, config: TuningConfig) -> TuningConfig:
        """The settings that are trained under, where `config` was asked for: a mitigation may take fewer steps."""
        for fewer in self._of(FewerSteps):
            config = fewer.config(config)
        return config

    def dataset(self, dataset: Dataset) -> Dataset:
        """The data set to train on."""
        for mitigation in self._of(Deduplication):
            dataset = mitigation.dataset(dataset, PixelEncoder())
        return dataset

    def steps(
        self,
        frozen: FrozenPipeline,
        dataset: Dataset,
        parameters: Mapping[str, torch.nn.Parameter],
        batches: TrainingBatches,
        *,
        learning_rate: float,
        config: TuningConfig,
        accelerator: Accelerator,
        state: TrainingState | None = None,
    ) -> Iterator[Step]:
        """One training; with no mitigation, or all at zero strength, `finetune_pipeline` to the last bit.

        Args:
            dataset: as `dataset` gave it, and what `batches` were made of.
            state: where what changes is kept, to be saved; one that was saved has the training go on from there.

        Raises:
            ModelError, DataError: a mitigation that needs captions, on a model or data without.
            MemControlError: strengths that do not suit this training.
            DivergedError: the loss became NaN or infinite.
        """
        config = self.tuning(config)
        train = self._training(frozen, dataset, parameters, batches)
        after = next((decay.after(parameters) for decay in self._of(DecayToStart)), None)
        steps = train(learning_rate=learning_rate, config=config, accelerator=accelerator, after=after, state=state)
        for stopping in self._of(EarlyStopping):
            loss = HeldOutLoss.of(frozen, dataset.heldout.fidelity, stopping, seed=batches.seed)
            watch = stopping.watch(partial(_agreed, loss, accelerator))
            if state is not None:
                state.add("early stopping", watch)
            steps = watch.steps(steps)
        if config.stop is None:
            yield from steps
            return
        for step in steps:
            yield step
            if step.number >= config.stop:
                return

    def sampler(
        self, frozen: FrozenPipeline, dataset: Dataset, config: SamplingConfig, *, seed: int
    ) -> AtInference | None:
        """What `sample` is given once the model is tuned; None for plain sampling."""
        for mitigation in self._inference:
            return mitigation.sampler(frozen=frozen, dataset=dataset, config=config, seed=seed)
        return None

    def _training(
        self,
        frozen: FrozenPipeline,
        dataset: Dataset,
        parameters: Mapping[str, torch.nn.Parameter],
        batches: TrainingBatches,
    ) -> Callable[..., Iterator[Step]]:
        """What trains, of the keywords that `finetune_pipeline`, shards and DP-SGD have in common."""

        def changed(plain: Batches) -> Batches:
            for mitigation in self._data:
                plain = mitigation.batches(plain, frozen=frozen, dataset=dataset, seed=batches.seed)
            return plain

        for ensemble in self._of(IterativeEnsemble):
            shards = ensemble.training(frozen, dataset.training, batches, data=changed if self._data else None)
            return partial(shards.steps, parameters)
        for private in self._of(DifferentialPrivacy):
            return partial(private.steps, frozen, parameters, batches)
        rule = next((bound.rule(frozen=frozen, dataset=dataset) for bound in self._of(Threshold)), None)
        return partial(finetune_pipeline, frozen, parameters, changed(batches), rule=rule)

    @property
    def in_shards(self) -> bool:
        """Whether processes train shards of their own, rather than the same batches together."""
        return bool(self._of(IterativeEnsemble))

    @property
    def _data(self) -> list[CaptionChange | EmbeddingNoise]:
        return [mitigation for mitigation in self.chosen if isinstance(mitigation, CaptionChange | EmbeddingNoise)]

    @property
    def _inference(self) -> list[InferenceNoise | InferenceOptimisation]:
        return [*self._of(InferenceNoise), *self._of(InferenceOptimisation)]

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [mitigation for mitigation in self.chosen if isinstance(mitigation, kind)]


def _agreed(loss: HeldOutLoss, accelerator: Accelerator) -> float:
    """A loss by which all processes stop at one step."""
    return of_first(loss(), accelerator)


def _idle(
    mitigation: CaptionChange | EmbeddingNoise | Threshold | InferenceNoise | InferenceOptimisation,
) -> bool:
    """Whether it changes nothing: zero strength."""
    if isinstance(mitigation, EmbeddingNoise | InferenceNoise):
        return not mitigation.strength
    return mitigation.idle

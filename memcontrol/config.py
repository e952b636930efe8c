"""One validated object per run, in and out of YAML; every default of a search stands here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from memcontrol.errors import MemControlError, nearest_names
from memcontrol.measures import PRESETS, full_name
from memcontrol.plain_files import read_yaml

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Base of every configuration section: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _without_slash(source: str) -> str:
    """`photos/`, as a shell completes it, is `photos`."""
    return source.rstrip("/") or source


class DataConfig(Settings):
    """Where images come from and how they are split.

    Attributes:
        source: `brain`, `faces`, `digits`, a path (folder, CSV or XLSX table, `.npz`), or `hf:NAME` (Hugging Face).
        train_size: distinct training images.
        repeat: `F:K`, a fraction F of the training images repeated K times in an epoch; None for no repeats.
        fidelity, copying, confirmation: images asked for in each held-out set; finite sources give what they have.
            For copying, 512 or eight times the training set, whichever is more, unless given.
        caption_column, path_column, subject_column, split_column: columns of a table or of metadata.
        captions: `column` reads them, `class-names` makes "a photo of a NAME" of the folder that an image is in, `none`
            gives every image an empty caption.
        bad_images: what to do with an image that does not decode.
        seed: of the draw of the sets; the run's seed unless given.
    """

    source: Annotated[str, AfterValidator(_without_slash)] = "brain"
    train_size: Positive = 32
    repeat: str | None = None
    fidelity: Positive = 512
    copying: Positive | None = None
    confirmation: Positive = 512
    caption_column: str = "text"
    path_column: str | None = None
    subject_column: str = "subject_id"
    split_column: str = "split"
    captions: Literal["column", "class-names", "none"] = "column"
    bad_images: Literal["error", "skip"] = "error"
    seed: Annotated[int, Field(ge=0)] | None = None

    @property
    def copying_size(self) -> int:
        """How many held-out images are asked for to measure copying."""
        return self.copying or max(512, 8 * self.train_size)


class TuningConfig(Settings):
    """The inner loop.

    Attributes:
        steps: optimizer steps of a candidate.
        warmup: share of the steps over which the learning rate rises.
        caption_dropout: probability that a caption is replaced by the empty one.
        clip: largest gradient norm.
        ema_decay: decay of the average of the tuned tensors that is sampled from; 0 samples the last tensors.
        mixed_precision: as accelerate names it.
        schedule: how the learning rate goes on after its rise: along a cosine to zero, or constant.
        accumulation: micro-batches that each process divides its share of a step's batch into, to need less memory.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        min_snr_gamma: bound on the signal-to-noise ratio in min-SNR weights of the loss, 5 as published; None counts
            every timestep alike.
        stop: break off after so many steps of a schedule of `steps`, as a checkpoint inside it was; None for its end.
    """

    steps: Positive = 300
    batch: Positive = 16
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    clip: Annotated[float, Field(gt=0)] = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    # Left out of what is written where they change nothing, so that older runs are still known as the same.
    schedule: Annotated[Literal["cosine", "constant"], Field(exclude_if=lambda name: name == "cosine")] = "cosine"
    accumulation: Annotated[int, Field(ge=1, exclude_if=lambda number: number == 1)] = 1
    gradient_checkpointing: Annotated[bool, Field(exclude_if=lambda wanted: not wanted)] = False
    min_snr_gamma: Annotated[float | None, Field(gt=0, exclude_if=lambda gamma: gamma is None)] = None
    stop: Annotated[int | None, Field(ge=1, exclude_if=lambda steps: steps is None)] = None


class SamplingConfig(Settings):
    """How images are generated: DPM-Solver++, few steps, guidance in one batch.

    Attributes:
        guidance: classifier-free guidance; 1 is none, which was better in both default objectives on the tiny pipeline
            (experiments/brain_search).
    """

    images: Positive = 256
    steps: Positive = 12
    guidance: Annotated[float, Field(ge=1)] = 1.0
    batch: Positive = 64


def _expanded(names: object) -> object:
    """The objectives of a preset, or those of a list or of text with commas, each with its source."""
    if isinstance(names, str):
        names = PRESETS.get(names, tuple(name.strip() for name in names.split(",") if name.strip()))
    if not isinstance(names, tuple | list):
        return names
    return tuple(full_name(name) if isinstance(name, str) else name for name in names)


def weight_paths(weights: object) -> object:
    """`{name: path}` of that or of a list of `NAME=PATH`."""
    if not isinstance(weights, list | tuple):
        return weights
    pairs = [str(item).partition("=") for item in weights]
    if any(not (name and separator and path) for name, separator, path in pairs):
        raise ValueError("expected NAME=PATH, such as inception=weights/inception.pth")
    return {name: path for name, _, path in pairs}


Names = Annotated[tuple[str, ...], BeforeValidator(_expanded, json_schema_input_type=str | tuple[str, ...])]


class AttackConfig(Settings):
    """Attacks on the tuned model itself, where a score asks for one.

    Attributes:
        images: most training images, and most held-out ones, that membership and noise magnitude are measured on.
        prompts: most prompts that extraction generates from: the training captions of most images first.
        generations: images of each of these prompts; as many as the attack's rules say unless given.
    """

    images: Positive = 512
    prompts: Positive = 20
    generations: Positive | None = None


class ScoringConfig(Settings):
    """What is optimised and what else is reported, each named `measure@source` or `module:function`.

    Attributes:
        objectives: a list, or the name of one of `PRESETS`; a source that is left out is the measure's usual one.
        components: leading components of the reference on which `fd` is computed.
        permutations: shuffled memberships behind each copying score's interval.
        reward_weights: one for each objective; 0.5 each unless given.
        encoder_weights: encoder -> local file or folder of its weights, for those that bring none.
        held_out: which held-out images are compared with: those of a search, for fidelity and for copying, or the third
            set, which no search sees, for both. Only the latter is written down, as earlier runs knew no other.
    """

    objectives: Annotated[Names, Field(min_length=1)] = PRESETS["default"]
    reported: Names = (
        "kid@efficientnet-lite0",
        "amd@efficientnet-lite0",
        "copy_gap@efficientnet-lite0",
        "copy_gap_raw@pixels",
        "copy_tail@pixels",
        "closer_share@pixels",
        "nn_ratio_share@pixels",
        "copied_share@pixels",
        "memorized_share@pixels",
        "membership_auc@pia",
    )
    components: Positive = 16
    permutations: Positive = 200
    reward_weights: tuple[float, ...] | None = None
    encoder_weights: Annotated[
        dict[str, str], BeforeValidator(weight_paths, json_schema_input_type=dict[str, str] | tuple[str, ...])
    ] = {}
    attack: AttackConfig = AttackConfig()
    held_out: Annotated[Literal["search", "confirmation"], Field(exclude_if=lambda chosen: chosen == "search")] = (
        "search"
    )

    @model_validator(mode="after")
    def _as_many_weights(self) -> Self:
        if self.reward_weights is not None and len(self.reward_weights) != len(self.objectives):
            raise ValueError(f"{len(self.reward_weights)} reward_weights for {len(self.objectives)} objectives")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """A reward weight for each objective."""
        return self.reward_weights or (0.5,) * len(self.objectives)


class Rung(Settings):
    """Where a candidate is scored before its training ends.

    Attributes:
        share: of its steps.
        images: sampled there: the first of those that it is scored by in the end.
    """

    share: Annotated[float, Field(gt=0, lt=1)]
    images: Positive


def _rungs(rungs: object) -> object:
    """`SHARE:IMAGES,...` as a list of rungs; none for `none` and empty text."""
    if not isinstance(rungs, str):
        return rungs
    parts = [part.partition(":") for part in rungs.split(",") if rungs not in ("", "none")]
    try:
        pairs = [(float(share), int(images)) for share, _, images in parts]
    except ValueError:
        pairs = [(0.0, 0)]
    if any(not 0 < share < 1 or images < 1 for share, images in pairs):
        raise ValueError("expected SHARE:IMAGES,... with a share of the steps below 1, such as 0.25:64, or none")
    return [{"share": share, "images": images} for share, images in pairs]


class SearchConfig(Settings):
    """The outer loop.

    Attributes:
        budget: total of completed and pruned candidates, baselines included, over all resumed parts of the run.
        sampler: `hamming`, an Optuna sampler, or `auto` to choose by budget, space and number of objectives.
        trajectory_rates: learning rates of the full fine-tuning reference; three, half a decade apart around the
            customary rate for all parameters of the space, unless given.
        trajectory_points: for which shares of `tuning.steps` that reference is trained.
        rungs: where candidates that are not among the best stop; nowhere unless given. Baselines and references go on.
        eta: at a rung the best 1/eta go on; with 1 rungs are scored and all go on.
        minimum: candidates that must have been scored at a rung before it stops one.
        margin: half-widths of its scores' intervals that a candidate is given before it is stopped.
        checkpoints: whether a candidate at a rung may stand on the front besides or instead of its end: those that no
            other dominates there, nor is foreseen to when all images are sampled, are scored by all images.
    """

    budget: Annotated[int, Field(ge=1)] = 50
    sampler: Literal["auto", "hamming", "gp", "tpe", "nsga2", "random"] = "auto"
    trajectory_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    trajectory_points: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0)
    rungs: Annotated[tuple[Rung, ...], BeforeValidator(_rungs, json_schema_input_type=str | tuple[Rung, ...])] = ()
    eta: Annotated[float, Field(ge=1)] = 2.0
    minimum: Positive = 8
    margin: Annotated[float, Field(ge=0)] = 0.0
    checkpoints: bool = False

    @model_validator(mode="after")
    def _rungs_rise(self) -> Self:
        shares = [rung.share for rung in self.rungs]
        if shares != sorted(set(shares)):
            raise ValueError(f"rungs at shares {', '.join(f'{share:g}' for share in shares)}: expected rising ones")
        if self.checkpoints and not self.rungs:
            raise ValueError("checkpoints without rungs: give the rungs at which candidates are scored")
        return self


class ConfirmConfig(Settings):
    """What of the front is trained again after a search, with fresh seeds and on the third held-out set.

    Attributes:
        seeds: how many; 0 leaves the front unconfirmed.
        trainings: at most, seeds times what is trained again: masks of the front, full fine-tuning, random masks.
        measures: what is scored besides the objectives; the objectives on another encoder unless given.
    """

    seeds: Annotated[int, Field(ge=0)] = 3
    trainings: Positive = 15
    measures: Names | None = None

    @model_validator(mode="after")
    def _each_seed_trains(self) -> Self:
        if self.trainings < self.seeds:
            raise ValueError(f"confirming on {self.seeds} seeds needs as many trainings or more, got {self.trainings}")
        return self


def _rate_range(rates: object) -> object:
    """`LOW:HIGH`, one rate for both, or a pair, as a pair of numbers."""
    if rates is None:
        return None
    parts = rates if isinstance(rates, list | tuple) else str(rates).split(":")
    try:
        low, high = (float(part) for part in (parts if len(parts) > 1 else (*parts, *parts)))
    except (TypeError, ValueError, OverflowError):
        low = high = math.nan
    if not 0 < low <= high < math.inf:
        raise ValueError("expected LOW:HIGH with 0 < LOW <= HIGH, such as 3e-4:1e-2, or one rate")
    return low, high


class RunConfig(Settings):
    """Everything that decides a run's scores.

    Attributes:
        model: a shipped name, a pipeline folder, or a hub id.
        space: a shipped search space, or the path of a YAML file.
        learning_rate: lowest and highest rate to search (`LOW:HIGH`, or one for both), instead of the space's own.
        mitigations: what is done against copying besides the mask, each `name` or `name:strength=value,...` as in
            `memcontrol.mitigations.naming`; a strength of several values, `0.1|0.2|0.4`, is searched.
        seed: of the training set's draw, of training and of sampling.
    """

    data: DataConfig = DataConfig()
    model: str = "tiny"
    space: str = "stage-kinds"
    learning_rate: Annotated[
        tuple[float, float] | None,
        BeforeValidator(_rate_range, json_schema_input_type=Rate | str | tuple[Rate, Rate] | None),
    ] = None
    mitigations: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    tuning: TuningConfig = TuningConfig()
    sampling: SamplingConfig = SamplingConfig()
    scoring: ScoringConfig = ScoringConfig()
    search: SearchConfig = SearchConfig()
    confirm: ConfirmConfig = ConfirmConfig()

    @model_validator(mode="after")
    def _rates_rise(self) -> Self:
        if self.learning_rate is not None and self.learning_rate[0] > self.learning_rate[1]:
            raise ValueError(f"learning_rate {self.learning_rate}: expected the lowest rate first")
        return self

    @model_validator(mode="after")
    def _rungs_sample_no_more(self) -> Self:
        most, whole = max((rung.images for rung in self.search.rungs), default=0), self.sampling.images
        if most > whole:
            raise ValueError(f"{most} images at a rung, and a candidate is scored by {whole}: expected no more")
        return self

    def to_yaml(self) -> str:
        """This configuration as YAML that `load_config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path) -> RunConfig:
    """A `RunConfig` from YAML; keys left out take their defaults.

    Raises:
        MemControlError: no such file, not YAML, or a key or value that is not allowed (named in the message).
    """
    if not path.is_file():
        raise MemControlError(f"no configuration file {path}: name an existing YAML file with --config")
    try:
        content = read_yaml(path) or {}
    except ValueError as error:
        raise MemControlError(f"{path} is not YAML: {error}") from error
    return validated(content, where=str(path))


def validated(content: Mapping[str, Any], *, where: str) -> RunConfig:
    """A `RunConfig` from plain values.

    Raises:
        MemControlError: a key or value that is not allowed, named after `where`.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        key, wrong, given = first_problem(error)
        raise MemControlError(f"{where}: {key or 'the whole file'}: {wrong} (got {given!r})") from error


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of dotted names and text."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat


def first_problem(error: ValidationError) -> tuple[str, str, object]:
    """The dotted key of the first problem that was found, what is wrong, and what was given."""
    first = error.errors()[0]
    loc = first["loc"]
    wrong = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "extra_forbidden":
        section = RunConfig if len(loc) == 1 else type(getattr(RunConfig(), str(loc[0])))
        wrong = f"unknown key; {nearest_names(str(loc[-1]), section.model_fields)}"
    return ".".join(str(part) for part in loc), wrong, first["input"]

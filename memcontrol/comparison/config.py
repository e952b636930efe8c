"""One validated object per comparison, in and out of YAML: which rows, on which data, with which seeds."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from memcontrol.comparison.methods import FREEZE, METHODS
from memcontrol.config import DataConfig, Names, Rate, RunConfig, SamplingConfig, ScoringConfig, Settings, TuningConfig
from memcontrol.errors import MemControlError, nearest_names
from memcontrol.plain_files import read_yaml
from memcontrol.space import validation_message

NONE = "none"
MOST_SEEDS = 1000


def listed(texts: object) -> object:
    """Texts with commas as a list of names."""
    if not isinstance(texts, str | list | tuple):
        return texts
    given = [texts] if isinstance(texts, str) else texts
    return [name.strip() for text in given for name in str(text).split(",") if name.strip()]


def listed_mitigations(texts: object) -> object:
    """The same for mitigations, whose strengths have commas too: `rwa:count=2,probability=0.5,threshold`."""
    pieces = listed(texts)
    if not isinstance(pieces, list):
        return pieces
    found: list[str] = []
    for piece in pieces:
        if found and "=" in piece.partition(":")[0]:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return found


def parts_of(mitigations: str) -> tuple[str, ...]:
    """Mitigations joined by `+`, each by itself; `none` has no parts."""
    parts = [part.strip() for part in re.split(r"\+(?=\s*[A-Za-z])", mitigations)]
    return tuple(part for part in parts if part and part != NONE)


def listed_seeds(seeds: object) -> object:
    """Whole numbers from a list or from text such as `5,6,7` or `5-12`."""
    pieces = listed(seeds if isinstance(seeds, str | list | tuple) else [seeds])
    found: list[object] = []
    for piece in pieces if isinstance(pieces, list) else []:
        match = re.fullmatch(r"(\d+)-(\d+)", piece)
        if match is None and not piece.isdecimal():
            raise ValueError(f"{piece!r} is no seed: expected whole numbers from 0, such as 5,6,7 or 5-12")
        if match is None:
            found.append(int(piece))
        elif int(match[2]) < int(match[1]):
            raise ValueError(f"{piece} is no range of seeds: expected the smaller one first, {match[2]}-{match[1]}")
        elif int(match[2]) - int(match[1]) >= MOST_SEEDS:
            raise ValueError(f"{piece} is more than {MOST_SEEDS} seeds")
        else:
            found += range(int(match[1]), int(match[2]) + 1)
    return found


def chosen_rates(rates: object) -> object:
    """`{method: rate}` of that, or of a list of `METHOD=RATE`."""
    pieces = listed(rates)
    if not isinstance(pieces, list):
        return pieces
    pairs = [piece.partition("=") for piece in pieces]
    if any(not (name and rate) for name, _, rate in pairs):
        raise ValueError("expected METHOD=RATE, such as full=3e-3")
    return {name: _rate(name, rate) for name, _, rate in pairs}


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise ValueError(f"a learning rate of {text} for {name}: expected a number above 0, such as 3e-3")
    return rate


Read = TypeVar("Read", bound=Settings)
Texts = str | tuple[str, ...]
Listed = Annotated[tuple[str, ...], BeforeValidator(listed, json_schema_input_type=Texts)]
Mitigations = Annotated[
    tuple[str, ...], BeforeValidator(listed_mitigations, json_schema_input_type=Texts), Field(min_length=1)
]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(listed_seeds, json_schema_input_type=int | str | tuple[int | str, ...]),
    Field(min_length=1, validate_default=True),
]


class Grid(Settings):
    """Rows of a table: every method and mask under every mitigation.

    Attributes:
        methods: of `memcontrol.comparison.methods.METHODS`; the untuned model has one row whatever the mitigations.
        masks: JSON files, or folders with a `mask.json`; a mask brings its groups and its rate.
        mitigations: each `none`, or `name:strength=value,...`, several joined by `+`.
    """

    methods: Listed = ()
    masks: tuple[str, ...] = ()
    mitigations: Mitigations = (NONE,)

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not (self.methods or self.masks):
            raise ValueError("neither methods nor masks: name at least one")
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"unknown method {name!r}: {nearest_names(name, METHODS)}")
        return self


class ComparisonScoring(ScoringConfig):
    """The scores: fewer are reported than in a search, since each is a column of a table."""

    reported: Names = ("kid@efficientnet-lite0", "amd@efficientnet-lite0", "copied_share@pixels")


class RowsConfig(Settings):
    """What all rows of a table share, whatever the rows are.

    Attributes:
        data: its training set is drawn anew for every seed.
        rates: learning rates of methods, where they are not those of `METHODS`.
        seeds: of the draw of the sets, of training and of sampling; by default none on which rates were chosen.
        tuning: `steps` are those of every row that has no number of its own.
    """

    data: DataConfig = DataConfig()
    model: str = "tiny"
    rates: Annotated[dict[str, Rate], BeforeValidator(chosen_rates, json_schema_input_type=dict[str, Rate] | Texts)] = (
        Field(default_factory=dict)
    )
    seeds: Seeds = (5, 6, 7)
    tuning: TuningConfig = TuningConfig()
    sampling: SamplingConfig = SamplingConfig()
    scoring: ComparisonScoring = ComparisonScoring()

    @model_validator(mode="after")
    def _each_seed_draws(self) -> Self:
        if self.data.seed is not None:
            raise ValueError("data.seed fixes the training set: leave it out, each of the seeds draws its own")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {', '.join(map(str, self.seeds))}: expected each once")
        for name in self.rates:
            if name not in METHODS or name == FREEZE:
                known = [method for method in METHODS if method != FREEZE]
                raise ValueError(f"a learning rate of {name!r}: {nearest_names(name, known)}")
        return self

    def run(self, seed: int) -> RunConfig:
        """The settings that all rows of one seed share."""
        return RunConfig(
            data=self.data,
            model=self.model,
            space="full-tuning",
            seed=seed,
            tuning=self.tuning,
            sampling=self.sampling,
            scoring=ScoringConfig.model_validate(self.scoring.model_dump()),
        )

    def to_yaml(self) -> str:
        """This configuration as YAML that can be read back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class ComparisonConfig(RowsConfig):
    """Everything that decides a comparison's scores.

    Attributes:
        grids: the rows; plain full fine-tuning is added where none of them has it.
        columns: scores that the tables show; all unless given.
    """

    grids: Annotated[tuple[Grid, ...], Field(min_length=1)] = (
        Grid(methods=(FREEZE, "full", "difffit", "attention", "svdiff")),
    )
    columns: Names | None = None


def load_comparison(path: Path) -> ComparisonConfig:
    """A `ComparisonConfig` from YAML; keys left out take their defaults, and masks are found beside the file.

    Raises:
        MemControlError: no such file, not YAML, or a key or value that is not allowed (named in the message).
    """
    config = read_settings(path, ComparisonConfig)
    grids = tuple(
        grid.model_copy(update={"masks": tuple(str(path.parent / mask) for mask in grid.masks)})
        for grid in config.grids
    )
    return config.model_copy(update={"grids": grids})


def read_settings(path: Path, kind: type[Read]) -> Read:
    """A configuration from YAML; keys left out take their defaults.

    Raises:
        MemControlError: no such file, not YAML, or a key or value that is not allowed (named in the message).
    """
    try:
        content: Any = read_yaml(path) or {}
    except OSError as error:
        raise MemControlError(f"no configuration file {path}: name an existing YAML file with --config") from error
    except ValueError as error:
        raise MemControlError(f"{path} is not YAML: {error}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise MemControlError(f"{path}: {validation_message(error)}") from error

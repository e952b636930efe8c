"""Search spaces: YAML files that say which parameters a search may switch on, and how they are grouped."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from memcontrol.config import Settings
from memcontrol.errors import SpaceError, nearest_names
from memcontrol.fingerprint import fingerprint
from memcontrol.plain_files import read_yaml

SCHEMA = "memcontrol/search-space@1"
METHODS = ("full", "svdiff", "difffit", "lora")
GroupBy = Literal[
    "all", "side", "stage", "stage-kind", "kind", "attention-block", "attention-layer", "matrix", "module", "name"
]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rank = Annotated[int, Field(ge=1)]
Ranks = Annotated[
    Annotated[Rank, Tag("number")] | Annotated[tuple[Rank, ...], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list | tuple) else "number"),
]
Rule = Annotated[str, Field(min_length=1)]


class LogRange(Settings):
    """Learning rates from `low` to `high`, both included, searched on a logarithmic scale."""

    low: Rate
    high: Rate

    @model_validator(mode="after")
    def _ascending(self) -> LogRange:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}: give one number for a fixed rate")
        return self


class SpacePart(Settings):
    """Some parameters of a U-Net, tuned by one method and divided into groups.

    Attributes:
        method: how the selected parameters are tuned.
        select: glob rules on whole dotted parameter names; a parameter that matches any of them is selected.
            `*` matches any characters, dots included, `?` one character, `[02]` one of those characters; case counts.
        exclude: glob rules that take parameters out of the selection again.
        group_by: what the parameters of one group share; see `memcontrol.groups.GROUPINGS`.
        name: with `group_by: all` the group's name, otherwise the last part of it (`down.0` becomes `down.0.NAME`).
        always: trained whatever the mask says.
        optional: may select nothing, on U-Nets that lack what it names; otherwise that is an error.
        rank: of `lora`: one for all groups of this part, or several, of which the search chooses one for each group.
        alpha: of `lora`: the change of a weight is multiplied by alpha / rank; alpha is the rank unless given.
    """

    method: Annotated[str, Field(json_schema_extra={"enum": list(METHODS)})] = "full"
    select: Annotated[tuple[Rule, ...], Field(min_length=1)]
    exclude: tuple[Rule, ...] = ()
    group_by: GroupBy = "all"
    name: Annotated[str, Field(pattern=r"^[\w-]+(\.[\w-]+)*$")] | None = None
    always: bool = False
    optional: bool = False
    rank: Ranks | None = None
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"unknown method: {nearest_names(method, METHODS)}")
        return method

    @model_validator(mode="after")
    def _settings_fit(self) -> SpacePart:
        if self.method == "lora" and self.rank is None:
            raise ValueError("method lora needs a rank")
        if self.method != "lora" and (self.rank, self.alpha) != (None, None):
            raise ValueError(f"rank and alpha are settings of lora, not of {self.method}")
        if self.always and len(self.choices) > 1:
            raise ValueError("a part that always trains has one rank: nothing chooses among several")
        return self

    @property
    def choices(self) -> tuple[dict[str, float], ...]:
        """The settings that a group of this part may have when it is on."""
        if self.rank is None:
            return ({},)
        ranks = self.rank if isinstance(self.rank, tuple) else (self.rank,)
        return tuple({"rank": rank, "alpha": self.alpha or float(rank)} for rank in dict.fromkeys(ranks))

    def selects(self, parameter: str) -> bool:
        """Whether this part's rules take the parameter of that dotted name."""
        chosen = any(fnmatchcase(parameter, rule) for rule in self.select)
        return chosen and not any(fnmatchcase(parameter, rule) for rule in self.exclude)


def _rate_tag(value: object) -> str:
    return "range" if isinstance(value, dict | LogRange) else "number"


class SearchSpace(Settings):
    """A search space as its YAML states it.

    Attributes:
        schema_: `schema` in YAML; names the format's version.
        learning_rate: one fixed rate, or a range to search.
        full_learning_rate: the middle rate of the full fine-tuning that masks are compared with, where it differs from
            what suits all parameters of this space.
        parts: read in order; a parameter may be in one part at most.
    """

    schema_: Annotated[Literal["memcontrol/search-space@1"], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    description: str = ""
    learning_rate: Annotated[
        Annotated[Rate, Tag("number")] | Annotated[LogRange, Tag("range")], Discriminator(_rate_tag)
    ]
    full_learning_rate: Rate | None = None
    parts: Annotated[tuple[SpacePart, ...], Field(min_length=1)]

    def content(self) -> dict[str, Any]:
        """This space as plain values that `SearchSpace.model_validate` reads back; defaults are left out.

        Leaving defaults out keeps `sha256` the same when a later version adds an optional key.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of what decides a search: learning rate and parts, not name and description."""
        content = {key: value for key, value in self.content().items() if key not in ("name", "description")}
        return fingerprint(content).removeprefix("sha256:")


def space_folder() -> Path:
    """The folder of shipped search spaces, in an installed package or in a checkout.

    Raises:
        SpaceError: the package was installed without them.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "search_spaces", package.parent / "search_spaces"):
        if (folder / "stage-kinds.yaml").is_file():
            return folder
    raise SpaceError("the search spaces are not installed with memcontrol: reinstall it, or give a path to a YAML file")


def space_names() -> tuple[str, ...]:
    """Names of the shipped search spaces, sorted."""
    return tuple(sorted(path.stem for path in space_folder().glob("*.yaml")))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A shipped search space by name, or one's own by the path of its YAML file.

    Raises:
        SpaceError: no such space, not YAML, or a key or value that is not allowed (file and key are named).
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or "/" in text or "\\" in text:
        if not path.is_file():
            raise SpaceError(f"no search space file {path}: give an existing YAML file, or {_shipped(path.stem)}")
        return _read(path)
    if text not in space_names():
        raise SpaceError(f"unknown search space {text!r}: {nearest_names(text, space_names())}; or give a path")
    return _read(space_folder() / f"{text}.yaml")


def validation_message(error: ValidationError) -> str:
    """The first problem that pydantic found, on one line: key, what is wrong, what was given."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key"
    if first["type"] in ("missing", "json_invalid"):
        return ": ".join(part for part in (where, first["msg"]) if part)
    given = repr(first["input"])
    message = first["msg"].removeprefix("Value error, ")
    if not where and first["type"] == "value_error":
        return message  # of keys that contradict each other
    if not where:
        message = "expected keys with values"
    return f"{where or 'the whole file'}: {message} (got {given if len(given) <= 80 else given[:77] + '...'})"


def _shipped(near: str) -> str:
    return f"a shipped name ({nearest_names(near, space_names())})"


def _read(path: Path) -> SearchSpace:
    try:
        content = read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"search space {path} cannot be read ({error}): give a YAML text file") from error
    except ValueError as error:
        raise SpaceError(f"search space {path} is not YAML: {error}") from error
    try:
        return SearchSpace.model_validate(content)
    except ValidationError as error:
        raise SpaceError(f"search space {path}: {validation_message(error)}") from error

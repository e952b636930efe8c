"""What commands share: options, the configuration that they make, and exit codes."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from memcontrol.config import RunConfig, Settings, first_problem
from memcontrol.errors import MemControlError
from memcontrol.terms import DATA, MODELS

DEFAULTS = RunConfig()
SEARCH_OPTIONS = {
    "data.source": "--data",
    "mitigations": "--mitigation",
    "scoring.encoder_weights": "--weights",
    "confirm.seeds": "--confirm",
    "confirm.trainings": "--confirm-trainings",
    "confirm.measures": "--confirm-measures",
}
"""Options that are not named after the last part of their key."""
Chosen = TypeVar("Chosen", bound=Settings)


def starting(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What completes a text to one of these names; typer asks for an argument of this name."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def starting_spaces(incomplete: str) -> list[str]:
    """The shipped search spaces whose names begin so."""
    from memcontrol.space import space_names

    return starting(space_names())(incomplete)


def option(
    text: str,
    default: object = None,
    *,
    panel: str | None = None,
    complete: Callable[[str], list[str]] | None = None,
) -> Any:
    """An option whose default, shown in help alone, comes from the configuration.

    Args:
        panel: of the help, where it stands apart from others.
        complete: what the shell offers for the text typed so far; where that is nothing, the shell offers files.
    """
    shown = False if default is None else str(default)
    return typer.Option(help=text, show_default=shown, rich_help_panel=panel, autocompletion=complete)


_data = DEFAULTS.data
DATA_SOURCES, DATA_NAMES = "brain, faces, digits, a folder, a CSV, XLSX or .npz file, or hf:NAME.", starting(DATA)
Data = Annotated[str | None, option(DATA_SOURCES, _data.source, complete=DATA_NAMES)]
Model = Annotated[
    str | None, option("tiny, tiny-sd, a pipeline folder, or a hub id.", DEFAULTS.model, complete=starting(MODELS))
]
Space = Annotated[
    str | None, option("A shipped search space, or a YAML file.", DEFAULTS.space, complete=starting_spaces)
]
Seed = Annotated[int | None, option("Of the training set's draw, of training and of sampling.", DEFAULTS.seed)]
Steps = Annotated[int | None, option("Optimizer steps.", DEFAULTS.tuning.steps)]
Batch = Annotated[int | None, option("Images in a step.", DEFAULTS.tuning.batch)]
Rates = Annotated[str | None, option("LOW:HIGH, or one rate.", "the space's own")]
Objectives = Annotated[
    str | None,
    option("measure@encoder,... or module:function, or a preset.", ",".join(DEFAULTS.scoring.objectives)),
]
Weights = Annotated[list[str] | None, option("NAME=PATH of an encoder's weights; may be repeated.")]
Mitigations = Annotated[
    list[str] | None,
    option(
        "NAME or NAME:STRENGTH=VALUE,... (docs/mitigations.md), VALUE|VALUE|... to search it; may be repeated.", "none"
    ),
]
Budget = Annotated[
    int | None, option("Total of candidates, over all resumed parts of the run.", DEFAULTS.search.budget)
]
Confirm = Annotated[
    int | None,
    option("Fresh seeds that train the front again after the search; 0 for none.", DEFAULTS.confirm.seeds),
]
ConfirmTrainings = Annotated[int | None, option("Trainings at most to confirm with.", DEFAULTS.confirm.trainings)]
ConfirmMeasures = Annotated[
    str | None, option("Scored besides the objectives when confirming.", "the objectives on another encoder")
]
Images = Annotated[int | None, option("Images sampled for each candidate.", DEFAULTS.sampling.images)]
Rungs = Annotated[
    str | None,
    option("SHARE:IMAGES,... where a candidate that is behind the others stops, such as 0.25:64; or none.", "none"),
]
Sampler = Annotated[str | None, option("auto, hamming, gp, tpe, nsga2 or random.", DEFAULTS.search.sampler)]
Out = Annotated[Path | None, option("Run folder; the same one resumes.", "runs/DATA-MODEL-SPACE")]
Workers = Annotated[str, typer.Option(help="Processes; auto for one per GPU, or one per CPU core.")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file; options override it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def with_options(command: Callable[..., None], keyword: str, options: Mapping[str, Any]) -> Callable[..., None]:
    """The command with these options in place of one keyword: a mapping of what they were given.

    Args:
        options: by name, each an annotated type whose default is None.
    """
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for parameter in own.parameters.values() if parameter.name != keyword]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=None, annotation=given) for name, given in options.items()]
    places = sum(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in kept)

    @functools.wraps(command)
    def taking(**given: Any) -> None:
        taken = {name: given.pop(name) for name in options}
        command(**given, **{keyword: taken})

    # What typer reads to make the options.
    parameters = [*kept[:places], *added, *kept[places:]]
    taking.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    taking.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return taking


def first_process() -> bool:
    """Whether this is the only process, or the first of those that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def exit_codes(interrupted: str = "nothing was written") -> Iterator[None]:
    """One line and exit code 1 for what a user can mend; 130 for Ctrl-C."""
    try:
        yield
    except MemControlError as error:
        _complain(str(error))
        raise typer.Exit(1) from error
    except OSError as error:
        if error.errno is None:
            raise
        where = "" if error.filename is None else f" {error.filename}"
        _complain(f"cannot read or write{where}: {error.strerror}; make room or choose another place")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        message = f"memcontrol: interrupted; {interrupted}"
        Console(stderr=True, soft_wrap=True).print(message, markup=False)
        raise typer.Exit(130) from error


def _complain(text: str) -> None:
    named = "memcontrol" if first_process() else f"memcontrol (process {os.environ['RANK']})"
    Console(stderr=True, soft_wrap=True).print(f"{named}: {text}", markup=False, highlight=False)


def overridden(config: RunConfig, changes: dict[str, dict[str, Any]]) -> RunConfig:
    """`config` with every value of `changes` that is not None, validated.

    Args:
        changes: section ("" for the top level) -> key -> value.

    Raises:
        MemControlError: a value that is not allowed, by the name of its option.
    """
    return configured(RunConfig, config.model_dump(mode="json"), changes)


def configured(
    kind: type[Chosen],
    content: dict[str, Any],
    changes: dict[str, dict[str, Any]],
    options: Mapping[str, str] = SEARCH_OPTIONS,
) -> Chosen:
    """A configuration of plain values with every value of `changes` that is not None, validated.

    Args:
        changes: dotted section ("" for the top level) -> key -> value.
        options: of keys whose option is not named after their last part.

    Raises:
        MemControlError: a value that is not allowed, by the name of its option.
    """
    for section, values in changes.items():
        target = content
        for name in section.split(".") if section else []:
            target = target.setdefault(name, {})
        target.update({key: value for key, value in values.items() if value is not None})
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        key, wrong, given = first_problem(error)
        # A whole section is at odds with itself, for instance an option with what the file says.
        named = key if isinstance(given, dict) else f"{option_name(key, options)} {_written(given)}"
        raise MemControlError(f"{named}: {wrong}" if named else wrong) from error


def chosen_mitigations(names: list[str] | None) -> list[str] | None:
    """The mitigations that options name: None where none was given, no mitigation for `none`.

    Raises:
        MemControlError: `none` beside others.
    """
    if names and "none" in names:
        if len(names) > 1:
            raise MemControlError(f"--mitigation none beside {len(names) - 1} more: give none alone, or leave it out")
        return []
    return names or None


def worker_count(text: str) -> int | None:
    """None for `auto`, else a positive number.

    Raises:
        MemControlError: neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise MemControlError(f"--workers {text}: expected auto or a number of at least 1")
    return int(text)


def _written(given: object) -> object:
    """A value as it was given."""
    return " ".join(map(str, given)) if isinstance(given, list) else given if given != "" else repr(given)


def option_name(key: str, options: Mapping[str, str] = SEARCH_OPTIONS) -> str:
    """The option that sets a dotted key of the configuration."""
    return options.get(key, f"--{key.rpartition('.')[2].replace('_', '-')}")

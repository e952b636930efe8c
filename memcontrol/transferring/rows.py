"""The rows of a transfer: the carried masks, and all that each is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memcontrol.carrying import Carried, carry
from memcontrol.comparison.cells import Cell, mask_row_name
from memcontrol.comparison.methods import FREEZE, FULL, METHODS, Recipe
from memcontrol.errors import MaskError
from memcontrol.exporting import picked_masks
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.random_masks import random_twins, switched
from memcontrol.run import RunFolder
from memcontrol.transferring.config import TransferConfig

if TYPE_CHECKING:
    from torch import nn

Role = Literal["mask", "random", "all groups", "target", "full", "freeze"]
TAKEN = (*METHODS, "untuned", "all groups")
"""Names that tables have for other rows."""


@dataclass(frozen=True)
class Row:
    """A row and what it is there for.

    Attributes:
        of: the mask that a random mask is a twin of.
    """

    role: Role
    recipe: Recipe
    of: str | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.recipe.name


@dataclass(frozen=True)
class Rows:
    """All rows of a transfer.

    Attributes:
        carried: by the mask's name; of the masks and of the target's own.
        whole: mask -> the row that trains all groups of its space; none for a mask that does itself.
    """

    rows: tuple[Row, ...]
    carried: dict[str, Carried]
    whole: dict[str, str]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each row to train."""
        return tuple(Cell(row.recipe) for row in self.rows)

    def named(self, *roles: Role, of: str | None = None) -> tuple[str, ...]:
        """Names of the rows of these roles; of random masks, the twins of one mask."""
        return tuple(row.name for row in self.rows if row.role in roles and (of is None or row.of == of))


def rows_of(config: TransferConfig, unet: nn.Module, model: ModelIdentity) -> Rows:
    """Every row, in the order in which a seed's are trained.

    Args:
        unet: the target's; its weights need not be loaded.
        model: its identity.

    Raises:
        MaskError: as `given_masks`; or a mask cannot be carried, or there are too few random masks of its size.
        RunError: a folder holds no finished search.
    """
    masks, targets = given_masks(config)
    carried = {}
    for name, mask in (masks | targets).items():
        with _naming(name):
            carried[name] = carry(mask, unet, model, by=config.map)
    recipes = {name: Recipe.of_mask(name, one.mask) for name, one in carried.items()}
    whole, added = _whole({name: recipes[name] for name in masks})
    rows = [Row("mask", recipes[name]) for name in masks]
    rows += [Row("freeze", Recipe.of_method(FREEZE)), *_full_rows(config), *added]
    rows += [Row("target", recipes[name]) for name in targets]
    rows += [row for name in masks for row in _twins(name, carried[name].mask, config)]
    return Rows(tuple(rows), carried, whole)


def given_masks(config: TransferConfig) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """The masks to transfer and the target's own, by name.

    Raises:
        MaskError: no mask, no such mask, one that trains nothing, or two of one name.
        RunError: a folder holds no finished search.
    """
    if not config.masks:
        raise MaskError("no mask to transfer: name a mask's JSON file or a search's folder with --mask")
    masks = named_masks(config.masks, config.pick)
    targets = named_masks(config.target_masks, config.pick)
    both = masks.keys() & targets.keys()
    if both:
        raise MaskError(f"{min(both)} is given as a mask and as the target's own: give one of the files another name")
    for name, mask in (masks | targets).items():
        if mask.learning_rate is None:
            raise MaskError(f"mask {name} trains nothing: there is nothing to transfer")
    return masks, targets


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Refusals of a mask begin with what tables call it."""
    try:
        yield
    except MaskError as error:
        raise MaskError(f"{name}: {error}") from error


def named_masks(paths: Iterable[str], pick: str) -> dict[str, Mask]:
    """Masks by name: a file's, or `RUN-PICK` of a search's folder; with `all`, `RUN-TRIAL`, `RUN-TRIAL-at-STEPS`.

    Raises:
        MaskError: no such file, two of one name, or a front of which no mask trains anything.
        RunError: a folder holds no finished search.
    """
    found: dict[str, Mask] = {}
    for path in map(Path, dict.fromkeys(paths)):
        for name, mask in _read(path, pick):
            if name in TAKEN or name in found:
                raise MaskError(f"mask {path}: another row is named {name}: give the file another name")
            found[name] = mask
    return found


def _read(path: Path, pick: str) -> list[tuple[str, Mask]]:
    if not RunFolder(path).front.is_file():
        return [(mask_row_name(path), Mask.from_pretrained(path))]
    run, masks = path.resolve().name, picked_masks(path, pick)
    if pick != "all":
        return [(f"{run}-{pick}", masks[0])]
    trained = [mask for mask in masks if mask.learning_rate is not None]
    if not trained:
        raise MaskError(f"no mask on the front of {path} trains anything: there is nothing to transfer")
    return [(f"{run}-{_trial_name(mask, number)}", mask) for number, mask in enumerate(trained)]


def _trial_name(mask: Mask, number: int) -> str:
    """A mask's trial, with the steps where it is a checkpoint; its place on the front where it does not say."""
    facts = mask.provenance
    return f"{facts.get('trial', number)}" + (f"-at-{facts.get('steps')}" if "of" in facts else "")


def _full_rows(config: TransferConfig) -> list[Row]:
    """Full fine-tuning at its rates and after so many steps; the plain one first."""
    whole = config.tuning.steps
    usual = Recipe.of_method(FULL, config.rates.get(FULL))
    lengths = dict.fromkeys([whole, *(max(1, round(share * whole)) for share in config.full_points)])
    rows = []
    for rate in dict.fromkeys([usual.rate, *config.full_rates]):
        for steps in lengths:
            parts = [FULL, *([] if steps == whole else [f"{steps} steps"])]
            parts += [] if rate == usual.rate else [f"rate {rate:g}"]
            own = None if steps == whole else steps
            rows.append(Row("full", replace(usual, name=", ".join(parts), rate=rate, steps=own)))
    return rows


def _whole(recipes: dict[str, Recipe]) -> tuple[dict[str, str], list[Row]]:
    """For each mask the row of all groups of its space at its rate; masks that agree on both share one."""
    names: dict[str, str] = {}
    rows: dict[str, Row] = {}
    for name, recipe in recipes.items():
        if recipe.mask is None or all(recipe.mask.bits):
            continue
        called = f"all of {recipe.mask.space.name}, rate {recipe.rate:g}"
        mask = _all_on(recipe.mask)
        row = Row("all groups", Recipe.of_mask(called, mask))
        if called in rows and rows[called].recipe.content != row.recipe.content:
            row = Row("all groups", Recipe.of_mask(f"{called} ({name})", mask))
        names[name] = row.name
        rows.setdefault(row.name, row)
    return names, list(rows.values())


def _all_on(mask: Mask) -> Mask:
    every, whence = [True] * len(mask.groups), {"all groups of": mask.name}
    return switched(mask, every, name=f"{mask.space.name}-all", provenance=whence)


def _twins(name: str, mask: Mask, config: TransferConfig) -> list[Row]:
    with _naming(name):
        twins = random_twins(mask, config.random, seed=config.random_seed) if config.random else ()
    return [
        Row("random", Recipe.of_mask(f"{name}, random {number}", twin), of=name)
        for number, twin in enumerate(twins, start=1)
    ]

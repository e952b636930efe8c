"""The rows of a comparison: each a method or a mask under mitigations, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from memcontrol.comparison.config import NONE, ComparisonConfig, Grid, parts_of
from memcontrol.comparison.methods import FREEZE, FULL, METHODS, Recipe
from memcontrol.data.images import Dataset
from memcontrol.errors import MaskError, MemControlError
from memcontrol.fingerprint import fingerprint
from memcontrol.mask import FILE_NAME, Mask
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class Cell:
    """One row of the table, trained once for every seed.

    Attributes:
        mitigations: as `load_mitigation` reads them; none for plain training.
    """

    recipe: Recipe
    mitigations: tuple[str, ...] = ()

    @property
    def mitigation(self) -> str:
        """The mitigations as text; `none` for none."""
        return " + ".join(self.mitigations) or NONE

    @property
    def name(self) -> str:
        """What the table calls it."""
        return " + ".join((self.recipe.name, *self.mitigations))

    @property
    def plan(self) -> MitigationPlan:
        """The mitigations, put in their places.

        Raises:
            MemControlError: a name or strength that does not exist, or two that exclude each other.
        """
        return MitigationPlan.of(self.mitigations)

    @property
    def content(self) -> str:
        """Hash of what decides its scores besides the settings that all rows share."""
        return fingerprint([self.recipe.content, [repr(one) for one in self.plan.chosen]])

    def check(self, frozen: FrozenPipeline, dataset: Dataset) -> None:
        """Refuse what this model and these data cannot have.

        Raises:
            MemControlError: by the row's name.
        """
        try:
            self.recipe.groups(frozen.unet)
            self.plan.check(frozen, dataset)
        except MemControlError as error:
            raise type(error)(f"{self.name}: {error}") from error


FULL_ALONE = FULL
"""The name of the row that the others are compared with."""


def cells_of(config: ComparisonConfig) -> tuple[Cell, ...]:
    """Every row once, in the order of the grids; plain full fine-tuning comes first where no grid has it.

    Raises:
        MaskError: no such mask file, two of one name, or one that trains nothing.
        MemControlError: a mitigation that does not exist, or two that exclude each other.
    """
    masks = _masks(config.grids)
    cells: dict[str, Cell] = {}
    for grid in config.grids:
        recipes = [Recipe.of_method(name, config.rates.get(name)) for name in grid.methods]
        recipes += [masks[path] for path in grid.masks]
        for recipe in recipes:
            for texts in grid.mitigations:
                # Nothing trains, so that no mitigation of training changes the untuned model.
                cell = Cell(recipe, () if recipe.name == FREEZE else parts_of(texts))
                cells.setdefault(cell.name, cell)
    for cell in cells.values():
        _ = cell.plan
    if FULL_ALONE in cells:
        return tuple(cells.values())
    return (Cell(Recipe.of_method(FULL, config.rates.get(FULL))), *cells.values())


def mask_row_name(path: Path) -> str:
    """What a table calls a mask: its file's name, or its folder's where the file is `mask.json`."""
    folder = path if path.is_dir() else path.parent if path.name == FILE_NAME else None
    return path.stem if folder is None else folder.resolve().name


def _masks(grids: Iterable[Grid]) -> dict[str, Recipe]:
    """Each mask by its path, named after its file, or after its folder where the file is `mask.json`."""
    found: dict[str, Recipe] = {}
    for text in dict.fromkeys(path for grid in grids for path in grid.masks):
        path = Path(text)
        name = mask_row_name(path)
        if name in METHODS or name in {recipe.name for recipe in found.values()}:
            raise MaskError(f"mask {path}: another row is named {name}: give the file another name")
        found[text] = Recipe.of_mask(name, Mask.from_pretrained(path))
    return found

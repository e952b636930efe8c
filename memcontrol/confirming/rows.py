"""What is trained again: masks along the front, full fine-tuning at its best rate, random masks of their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memcontrol.comparison.cells import Cell
from memcontrol.comparison.methods import Recipe
from memcontrol.config import RunConfig
from memcontrol.errors import MaskError, MemControlError
from memcontrol.exporting import fidelity_then_copying
from memcontrol.mask import Mask
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.random_masks import random_twins, size_notes
from memcontrol.run import RunFolder
from memcontrol.study.confirmed import FRONT, FULL, RANDOM, Kind
from memcontrol.study.front import minimised_points, picked

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Again:
    """One row of a confirmation.

    Attributes:
        kind: what it is, as `memcontrol.study.confirmed` names it.
        member: of the front: itself, or the one whose size a random mask has; None for full fine-tuning.
    """

    kind: Kind
    cell: Cell
    member: Content | None = None

    @property
    def name(self) -> str:
        """What results and messages call it."""
        return self.cell.recipe.name


@dataclass(frozen=True)
class Chosen:
    """What is trained again.

    Attributes:
        notes: sentences on what is not, and why.
    """

    rows: tuple[Again, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The rows as a comparison takes them."""
        return tuple(row.cell for row in self.rows)


def chosen_rows(front: Content, folder: RunFolder, config: RunConfig, count: int) -> Chosen:
    """At most `count` rows, the most telling first; a larger count adds to a smaller one's.

    The front's knee, full fine-tuning and a random mask of the knee's size come first. Then come further members, each
    as far along the front from those chosen as can be, and then a random mask for each of them.

    Args:
        front: the content of `front.json`.
        config: of the run.
        count: 1 or more.

    Raises:
        MaskError: a member's mask file is missing or broken.
        MemControlError: no member of the front trains anything.
    """
    members = [member for member in front["front"] if member["learning_rate"] is not None]
    if not members:
        raise MemControlError(f"no mask on the front of {folder.path} trains anything: there is nothing to confirm")
    along = [members[i] for i in spread(minimised_points(members, front["objectives"]))]
    own = [_member(member, folder, config) for member in along]
    full = _full(front, config)
    notes = [] if full else ["full fine-tuning was not scored in the search, and is not trained again"]
    twins = list[Again]()
    places = count - (full is not None)
    # As many as there is room for beside all members; one where there is none, but room for two rows.
    room = max(places - len(own), 1 if places >= 2 else 0)
    for row in own[:room]:
        try:
            twin, said = _twin(row, config.seed)
        except MaskError as error:
            notes.append(f"no random mask beside {row.name}: {error}")
        else:
            twins.append(twin)
            notes += said
    kept = own[: max(1, places - len(twins))]
    if len(kept) < len(own):
        notes.append(f"{len(kept)} of {len(own)} masks on the front are trained again: ask for more trainings for all")
    return Chosen(tuple([*kept, *([full] if full else []), *twins][:count]), tuple(notes))


def spread(points: NDArray[np.float64]) -> list[int]:
    """All positions of a front `(N, M)`, to be minimised: its knee, then each time the farthest from those before.

    Distance is counted in members, along the front; of two as far the one that is better in the first objective comes.
    """
    order = picked(points, "knee")
    while len(order) < len(points):
        left = [i for i in range(len(points)) if i not in order]
        order.append(max(left, key=lambda i: (min(abs(i - j) for j in order), -i)))
    return order


def _member(member: Content, folder: RunFolder, config: RunConfig) -> Again:
    mask = Mask.from_pretrained(folder.path / member["mask"])
    settings = mask.provenance.get("settings", {})
    mitigations = tuple(settings.get("mitigations", config.mitigations))
    # A checkpoint is trained as it was: broken off inside the schedule of a whole candidate.
    at = member["steps"] if "of" in member else None
    recipe = replace(Recipe.of_mask(folder.mask(member["trial"], at).stem, mask), stop=at)
    return Again(FRONT, Cell(recipe, mitigations), member)


def _twin(row: Again, seed: int) -> tuple[Again, tuple[str, ...]]:
    """A random mask of a member's size, and a note where it is not quite of that size."""
    mask = row.cell.recipe.mask
    if mask is None:
        raise MaskError(f"{row.name} is no mask, and has no random mask of its size")
    (twin,) = random_twins(mask, 1, seed=seed)
    recipe = Recipe.of_mask(f"{row.name}-random", replace(twin, name=f"{row.name}-random"))
    recipe = replace(recipe, stop=row.cell.recipe.stop)
    return Again(RANDOM, replace(row.cell, recipe=recipe), row.member), size_notes(row.name, mask, [twin])


def _full(front: Content, config: RunConfig) -> Again | None:
    """Full fine-tuning at about as many steps as candidates have, at the rate that was best there.

    Best in the first objective of fidelity, wherever it stands; in the first objective where none is of fidelity.
    """
    points = [p for points in front["references"].values() for p in points if p["learning_rate"] is not None]
    if not points:
        return None
    nearest = min(abs(point["steps"] - config.tuning.steps) for point in points)
    fair = [point for point in points if abs(point["steps"] - config.tuning.steps) == nearest]
    names = [objective["name"] for objective in front["objectives"]]
    first = names.index(fidelity_then_copying(names)[0])
    best = fair[int(np.argmin(minimised_points(fair, front["objectives"])[:, first]))]["learning_rate"]
    choices = MitigationChoices.of(config.mitigations)
    recipe = replace(Recipe.of_method(FULL, best), name=f"{FULL}-{best:g}")
    return Again(FULL, Cell(recipe, choices.texts(choices.middle)))

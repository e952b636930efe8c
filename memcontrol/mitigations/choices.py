"""Mitigations whose strengths a search chooses: `threshold:share=0.1|0.2|0.4` leaves one strength open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from memcontrol.errors import MemControlError
from memcontrol.mitigations.plan import MitigationPlan

SEPARATOR = "|"


@dataclass(frozen=True)
class StrengthGrid:
    """The values of one strength that a search chooses from.

    Attributes:
        name: `mitigation.strength`, such as `threshold.share`.
        values: as given, two or more.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class MitigationChoices:
    """Mitigations as text, some of whose strengths have several values.

    Attributes:
        pieces: the text of each mitigation, cut where a searched value belongs.
        grids: the searched strengths, in the order in which they stand in the text.
    """

    pieces: tuple[tuple[str, ...], ...] = ()
    grids: tuple[StrengthGrid, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> MitigationChoices:
        """The choices that texts such as `threshold:share=0.1|0.2` leave open.

        Raises:
            MemControlError: a strength with one value twice, two searched strengths of one name, or any choice that is
                no valid mitigation or the same as another.
        """
        pieces, grids = [], list[StrengthGrid]()
        for text in texts:
            cut, own = _cut(text)
            pieces.append(cut)
            grids += own
        choices = cls(tuple(pieces), tuple(grids))
        for name in choices.names:
            if choices.names.count(name) > 1:
                raise MemControlError(f"strength {name} is searched in two mitigations: search one of them")
        plans = set[MitigationPlan]()
        for indices in choices.all():
            plan = choices.plan(indices)
            if plan in plans:
                raise MemControlError(
                    f"mitigations {', '.join(texts)}: {', '.join(choices.texts(indices))} is the same as another "
                    "choice: expected different values, and each strength once"
                )
            plans.add(plan)
        return choices

    @property
    def names(self) -> tuple[str, ...]:
        """Of the searched strengths."""
        return tuple(grid.name for grid in self.grids)

    @property
    def count(self) -> int:
        """How many ways to choose there are; 1 where nothing is searched."""
        return math.prod(len(grid.values) for grid in self.grids)

    @property
    def middle(self) -> tuple[int, ...]:
        """The middle value of every grid, the lower of two."""
        return tuple((len(grid.values) - 1) // 2 for grid in self.grids)

    def all(self) -> Iterator[tuple[int, ...]]:
        """Every way to choose, as one index for each grid."""
        yield from product(*(range(len(grid.values)) for grid in self.grids))

    def texts(self, indices: Sequence[int]) -> tuple[str, ...]:
        """The mitigations with these values, as `load_mitigation` reads them."""
        chosen = iter([grid.values[index] for grid, index in zip(self.grids, indices, strict=True)])
        return tuple(cut[0] + "".join(next(chosen) + piece for piece in cut[1:]) for cut in self.pieces)

    def values(self, indices: Sequence[int]) -> dict[str, str]:
        """The value of each searched strength, by its name; nothing where no index is given."""
        return {grid.name: grid.values[index] for grid, index in zip(self.grids, indices, strict=False)}

    def plan(self, indices: Sequence[int]) -> MitigationPlan:
        """The mitigations with these values, put in their places.

        Raises:
            MemControlError: a name or strength that does not exist, or two mitigations that exclude each other.
        """
        return MitigationPlan.of(self.texts(indices))


def _cut(text: str) -> tuple[tuple[str, ...], list[StrengthGrid]]:
    """The text cut where searched values stand, and their grids."""
    name, colon, settings = text.partition(":")
    cut, grids = [name + colon], list[StrengthGrid]()
    for position, item in enumerate(settings.split(",") if settings else ()):
        key, equals, value = item.partition("=")
        cut[-1] += ("," if position else "") + key + equals
        if SEPARATOR not in value:
            cut[-1] += value
            continue
        values = tuple(part.strip() for part in value.split(SEPARATOR))
        if len(set(values)) < len(values) or not all(values):
            raise MemControlError(f'mitigation {text}: expected different values between "{SEPARATOR}", got {value}')
        grids.append(StrengthGrid(f"{name}.{key}", values))
        cut.append("")
    return tuple(cut), grids

"""What a search space makes of a model: its groups, their levels, sizes and shares, as a table or as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from memcontrol.groups import ParameterGroup
from memcontrol.space import LogRange, SearchSpace

SCHEMA = "memcontrol/inspection@1"


def inspection_table(groups: Sequence[ParameterGroup], unet_numel: int, *, model_id: str, space: SearchSpace) -> Table:
    """Groups, methods, sizes and percentages of the U-Net, one row per group and a total.

    A group that may train at several levels has a line for each; the total counts the largest.

    Args:
        unet_numel: numbers in the whole U-Net.
        model_id: what the title calls the model.
    """
    numel = largest_numel(groups)
    settings = any(level.settings for group in groups for level in _levels(group))
    several = any(group.alternatives for group in groups)
    table = Table(
        title=Text(f"{space.name} on {model_id}"),
        caption=Text(f"{_searched(groups)}, learning rate {_rate(space)}"),
        show_footer=True,
    )
    table.add_column("bit", justify="right")
    table.add_column("group", footer="all groups, at most" if several else "all groups", no_wrap=True)
    table.add_column("method")
    if settings:
        table.add_column("level", no_wrap=True)
    table.add_column("tensors", justify="right", footer=f"{sum(len(group.parameters) for group in groups):,}")
    table.add_column("numbers", justify="right", footer=f"{numel:,}")
    table.add_column("% of U-Net", justify="right", footer=percent_text(100 * numel / unet_numel))
    for bit, group in _numbered(groups):
        levels = _levels(group)
        cells: list[str | Text] = ["always" if bit is None else str(bit), Text(group.name), group.method]
        cells += ["\n".join(map(_level_text, range(1, len(levels) + 1), levels))] if settings else []
        cells += [f"{len(group.parameters):,}", "\n".join(f"{level.numel:,}" for level in levels)]
        table.add_row(*cells, "\n".join(percent_text(100 * level.numel / unet_numel) for level in levels))
    return table


def inspection_json(
    groups: Sequence[ParameterGroup], unet_numel: int, *, model_id: str, space: SearchSpace
) -> dict[str, Any]:
    """The same as plain values.

    `bit` is the place in `Mask.bits`, null for a group that always trains; `levels` are those above zero, which is
    frozen; `numel` and `percent` are those of a group's largest level.
    """
    return {
        "schema": SCHEMA,
        "model": {"id": model_id, "numel": unet_numel},
        "space": {"name": space.name, "sha256": space.sha256, "content": space.content()},
        "bits": sum(not group.always for group in groups),
        "masks": mask_count(groups),
        "always": _share(largest_numel([group for group in groups if group.always]), unet_numel),
        "trainable": _share(largest_numel(groups), unet_numel),
        "groups": [
            {
                "bit": bit,
                "name": group.name,
                "method": group.method,
                "tensors": len(group.parameters),
                **_share(largest_numel([group]), unet_numel),
                "levels": [
                    {"settings": dict(level.settings), **_share(level.numel, unet_numel)} for level in _levels(group)
                ],
                "parameters": list(group.parameters),
            }
            for bit, group in _numbered(groups)
        ],
    }


def mask_count(groups: Sequence[ParameterGroup]) -> int:
    """How many masks a space holds: the product of its groups' levels, frozen included."""
    return math.prod(1 + len(_levels(group)) for group in groups if not group.always)


def largest_numel(groups: Sequence[ParameterGroup]) -> int:
    """How many numbers train with every group on, each at its largest level."""
    return sum(max(level.numel for level in _levels(group)) for group in groups)


def percent_text(percent: float) -> str:
    """A percentage to two significant digits below 1, since published masks train as little as 0.019 %."""
    return f"{percent:.2g}" if 0 < percent < 1 else f"{percent:.1f}"


def _share(numel: int, unet_numel: int) -> dict[str, float]:
    return {"numel": numel, "percent": 100 * numel / unet_numel}


def _levels(group: ParameterGroup) -> list[ParameterGroup]:
    return [group.at(level) for level in range(1, 2 + len(group.alternatives))]


def _level_text(number: int, level: ParameterGroup) -> str:
    told = {name: value for name, value in level.settings.items() if name != "alpha" or value != level.settings["rank"]}
    settings = ", ".join(f"{name} {value:g}" for name, value in told.items())
    return f"{number}: {settings}" if settings else str(number)


def _numbered(groups: Sequence[ParameterGroup]) -> list[tuple[int | None, ParameterGroup]]:
    return [(None if group.always else bit, group) for bit, group in enumerate(groups)]


def _searched(groups: Sequence[ParameterGroup]) -> str:
    count, bits = mask_count(groups), sum(not group.always for group in groups)
    binary = count == 2**bits
    what = "bit" if binary else "switch"
    plural = {"bit": "s", "switch": "es"}[what] if bits != 1 else ""
    masks = f"{count:,}" if count <= 2**32 else f"2^{bits}" if binary else f"some 10^{math.log10(count):.0f}"
    return f"{bits} {what}{plural}, {masks} mask{'' if bits == 0 else 's'}"


def _rate(space: SearchSpace) -> str:
    rate = space.learning_rate
    return f"{rate.low:g} to {rate.high:g}" if isinstance(rate, LogRange) else f"{rate:g}"

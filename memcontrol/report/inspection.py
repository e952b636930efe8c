"""What a search space makes of a model: its groups, their sizes and shares, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from memcontrol.groups import ParameterGroup
from memcontrol.space import LogRange, SearchSpace

SCHEMA = "memcontrol/inspection@1"


def inspection_table(groups: Sequence[ParameterGroup], unet_numel: int, *, model_id: str, space: SearchSpace) -> Table:
    """Groups, methods, sizes and percentages of the U-Net, one row per group and a total.

    Args:
        unet_numel: numbers in the whole U-Net.
        model_id: what the title calls the model.
    """
    numel = sum(group.numel for group in groups)
    table = Table(
        title=Text(f"{space.name} on {model_id}"),
        caption=Text(f"{_searched(groups)}, learning rate {_rate(space)}"),
        show_footer=True,
    )
    table.add_column("bit", justify="right")
    table.add_column("group", footer="all groups", no_wrap=True)
    table.add_column("method")
    table.add_column("tensors", justify="right", footer=f"{sum(len(group.parameters) for group in groups):,}")
    table.add_column("numbers", justify="right", footer=f"{numel:,}")
    table.add_column("% of U-Net", justify="right", footer=percent_text(100 * numel / unet_numel))
    for bit, group in _numbered(groups):
        share = percent_text(100 * group.numel / unet_numel)
        tensors = f"{len(group.parameters):,}"
        table.add_row(
            "always" if bit is None else str(bit), Text(group.name), group.method, tensors, f"{group.numel:,}", share
        )
    return table


def inspection_json(
    groups: Sequence[ParameterGroup], unet_numel: int, *, model_id: str, space: SearchSpace
) -> dict[str, Any]:
    """The same as plain values; `bit` is the place in `Mask.bits`, null for a group that always trains."""
    numel = sum(group.numel for group in groups)
    return {
        "schema": SCHEMA,
        "model": {"id": model_id, "numel": unet_numel},
        "space": {"name": space.name, "sha256": space.sha256, "content": space.content()},
        "bits": sum(not group.always for group in groups),
        "trainable": {"numel": numel, "percent": 100 * numel / unet_numel},
        "groups": [
            {
                "bit": bit,
                "name": group.name,
                "method": group.method,
                "tensors": len(group.parameters),
                "numel": group.numel,
                "percent": 100 * group.numel / unet_numel,
                "parameters": list(group.parameters),
            }
            for bit, group in _numbered(groups)
        ],
    }


def percent_text(percent: float) -> str:
    """A percentage to two significant digits below 1, since published masks train as little as 0.019 %."""
    return f"{percent:.2g}" if 0 < percent < 1 else f"{percent:.1f}"


def _numbered(groups: Sequence[ParameterGroup]) -> list[tuple[int | None, ParameterGroup]]:
    return [(None if group.always else bit, group) for bit, group in enumerate(groups)]


def _searched(groups: Sequence[ParameterGroup]) -> str:
    bits = sum(not group.always for group in groups)
    masks = f"{2**bits:,}" if bits <= 32 else f"2^{bits}"
    return f"{bits} bit{'' if bits == 1 else 's'}, {masks} mask{'' if bits == 0 else 's'}"


def _rate(space: SearchSpace) -> str:
    rate = space.learning_rate
    return f"{rate.low:g} to {rate.high:g}" if isinstance(rate, LogRange) else f"{rate:g}"

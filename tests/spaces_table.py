"""The table of docs/spaces.md; `python tests/spaces_table.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

from generated_part import GeneratedPart
from unet_configs import MODELS, numel_of, unet_of

from memcontrol.errors import SpaceError
from memcontrol.groups import parameter_groups
from memcontrol.report.inspection import largest_numel, percent_text
from memcontrol.space import load_space, space_names

PAGE = Path(__file__).parents[1] / "docs" / "spaces.md"
PART = GeneratedPart(PAGE, "tests/spaces_table.py")


def table() -> str:
    """Bits, and numbers trained by the all-zero and the all-one mask, of every shipped space on every model."""
    lines = [
        f"| space | {' | '.join(MODELS)} |",
        "|---" * (1 + len(MODELS)) + "|",
        f"| numbers in the U-Net | {' | '.join(f'{numel_of(model):,}' for model in MODELS)} |",
    ]
    lines += [f"| `{name}` | {' | '.join(cell(name, model) for model in MODELS)} |" for name in space_names()]
    return "\n".join(lines)


def cell(space: str, model: str) -> str:
    """One space on one model; the all-zero mask is named where it trains anything."""
    try:
        groups = parameter_groups(load_space(space), unet_of(model))
    except SpaceError:
        return "does not fit"
    zero, one = largest_numel([group for group in groups if group.always]), largest_numel(groups)
    bits = sum(not group.always for group in groups)
    trained = f"{zero:,} to {one:,}" if zero else f"{one:,}"
    return f"{bits}: {trained} ({percent_text(100 * one / numel_of(model))} %)"


if __name__ == "__main__":
    PART.write(table())

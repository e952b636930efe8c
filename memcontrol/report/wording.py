"""How numbers, masks and durations are written, wherever people read them."""

from __future__ import annotations

from collections.abc import Sequence

MOST_BLOCKS = 24


def number_text(value: float) -> str:
    """Three significant digits, zeros kept, without an exponent wherever a person would not use one."""
    if 99.95 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return "0" if value == 0 else f"{value:#.3g}"


def rate_text(rate: float | None) -> str:
    """A learning rate; a dash where nothing trains."""
    return "–" if rate is None else f"{rate:g}"


def mask_blocks(bits: str, *, ascii_only: bool = False) -> str:
    """Zeros and ones as blocks, filled where a group trains; a count where there are too many to show.

    Args:
        bits: of a mask.
        ascii_only: write `#` and `.`, for a terminal that shows no others.
    """
    if len(bits) > MOST_BLOCKS:
        return f"{bits.count('1')} of {len(bits)}"
    filled, empty = "#." if ascii_only else "■□"
    return bits.replace("1", filled).replace("0", empty)


def duration_text(seconds: float) -> str:
    """A duration, as exact as an estimate deserves."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each score's measure without its encoder, where no other of these has the same measure."""
    measures = [name.partition("@")[0] for name in names]
    return {
        name: measure if measures.count(measure) == 1 else name for name, measure in zip(names, measures, strict=True)
    }

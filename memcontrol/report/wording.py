"""How numbers, masks and durations are written, wherever people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memcontrol.score.value import Score

MOST_BLOCKS = 24
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


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

    A level above 1, of a group that may train under several settings, stays a digit.

    Args:
        bits: of a mask, or levels.
        ascii_only: write `#` and `.`, for a terminal that shows no others.
    """
    if len(bits) > MOST_BLOCKS:
        return f"{lit_count(bits)} of {len(bits)}"
    filled, empty = "#." if ascii_only else "■□"
    return bits.replace("1", filled).replace("0", empty)


def lit_count(bits: str) -> int:
    """How many groups train, at whichever level."""
    return len(bits) - bits.count("0")


def member_name(member: Mapping[str, Any]) -> str:
    """The number of a front member's trial, with its steps where it is a checkpoint inside a longer training."""
    return f"{member['trial']} at {member['steps']:,}" if "of" in member else str(member["trial"])


def duration_text(seconds: float) -> str:
    """A duration, as exact as an estimate deserves."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size_text(count: float) -> str:
    """Bytes in the unit that suits them: `17.4 MB`."""
    for unit, size in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each score's measure without its encoder, where no other of these has the same measure."""
    measures = [name.partition("@")[0] for name in names]
    return {
        name: measure if measures.count(measure) == 1 else name for name, measure in zip(names, measures, strict=True)
    }


def signed_text(value: float) -> str:
    """A number as `number_text` writes it, with a real minus sign."""
    text = number_text(value)
    return f"−{text[1:]}" if text.startswith("-") else text


def interval_text(score: Score) -> str:
    """Both ends of the 95 % interval."""
    return f"{signed_text(score.low)} to {signed_text(score.high)}"


def counted_text(count: int, one: str, many: str = "") -> str:
    """`3 images`, `1 image` or `no images`.

    Args:
        many: the plural, where it is not `one` with an s.
    """
    return f"{count or 'no':{',' if count else ''}} {one if count == 1 else many or one + 's'}"


def plain_text(value: Any) -> str:
    """A plain JSON value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)

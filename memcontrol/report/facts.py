"""Nested JSON as labelled lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memcontrol.report.wording import plain_text

MOST_LISTED = 12


@dataclass(frozen=True)
class Fact:
    """One thing said of what was audited: a label, and one or more lines; `exact` for hashes and commands."""

    label: str
    lines: tuple[str, ...]
    exact: bool = False


def facts(content: Mapping[str, Any], *, without: Sequence[str] = ()) -> list[Fact]:
    """Nested JSON as labelled lines, in its own order; what is None or empty is left out.

    Args:
        without: keys of the outermost level to leave out.
    """
    return list(_facts({key: value for key, value in content.items() if key not in without}, ""))


def _facts(content: Mapping[str, Any], prefix: str) -> Iterator[Fact]:
    for key, value in content.items():
        label = f"{prefix}{_label(key)}"
        if isinstance(value, Mapping):
            yield from _facts(value, f"{label}, ")
        elif isinstance(value, (list, tuple)):
            if value:
                yield Fact(label, _lines(value))
        elif value is not None and value != "":
            text = plain_text(value)
            yield Fact(label, (text,), exact=_is_hash(text))


def _label(key: str) -> str:
    return {"n": "images", "sha256": "SHA-256", "id": "id"}.get(key, key.replace("_", " "))


def _lines(values: Sequence[Any]) -> tuple[str, ...]:
    texts = [plain_text(value) for value in values]
    sentences = any(len(text) > 40 for text in texts)
    shown = texts if sentences else texts[:MOST_LISTED]
    rest = f" and {len(texts) - len(shown):,} more" if len(texts) > len(shown) else ""
    return tuple(shown) if sentences else (", ".join(shown) + rest,)


def _is_hash(text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return len(digits) >= 16 and all(digit in "0123456789abcdef…" for digit in digits)

"""What workers tell whoever watches them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A worker is at step `done` of `total` of a phase (`load`, `tune`, `sample`, `score`) of some work."""

    worker: int
    work: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A worker finished some work: `trial` is its number, None for a reference; `error` says why it failed, if it did.

    `scores` holds a completed trial's objectives, and `pruned` says where one ended that did not complete.
    """

    worker: int
    work: str
    trial: int | None
    seconds: float
    error: str | None = None
    scores: dict[str, float] | None = None
    pruned: str | None = None


@dataclass(frozen=True)
class Note:
    """A sentence for the user."""

    text: str


Event = Progress | Finished | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""

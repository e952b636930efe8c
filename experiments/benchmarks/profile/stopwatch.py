"""A stopwatch for parts of a program: functions are wrapped from outside, each part charged its own time alone."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OUTSIDE = "else"


class Stopwatch:
    """CPU seconds of this process by part, less what parts inside it took.

    Attributes:
        spent: seconds by the path of the parts that were running, outermost first, with " > " between.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self.clock, self.running, self.since = clock, list[str](), clock()
        self.spent: dict[str, float] = defaultdict(float)

    def taken(self) -> dict[str, float]:
        """What was spent since it was last taken."""
        self._charge()
        spent, self.spent = dict(self.spent), defaultdict(float)
        return spent

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside, time is charged to the part."""
        self._charge()
        self.running.append(name)
        try:
            yield
        finally:
            self._charge()
            self.running.pop()

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Charge every call of `owner.attribute` to a part, from now on."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return original(*args, **kwargs)

        setattr(owner, attribute, timed)

    def _charge(self) -> None:
        now = self.clock()
        self.spent[" > ".join(self.running) or OUTSIDE] += now - self.since
        self.since = now

"""A search while it runs: a live display on a terminal, plain lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from threading import Lock
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from memcontrol.config import RunConfig
from memcontrol.report.live_display import live_display
from memcontrol.report.tally import Tally
from memcontrol.report.wording import number_text
from memcontrol.run import RunFolder
from memcontrol.study.events import Event, Finished, Note


class JsonLines:
    """A listener that writes each event as one JSON object on one line; `event` is its kind."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        """Write an event."""
        self.stream.write(json.dumps({"event": type(event).__name__.lower()} | asdict(event)) + "\n")
        self.stream.flush()


class LiveView:
    """Shows a search; a listener, and a context manager around it.

    On a terminal the display is redrawn in place. Elsewhere each note and each finished piece of work is one line.

    Args:
        config: of the run.
        folder: of the run, for what an earlier part of it did and for the masks on the front.
        console: where to show it.
        confirms: whether the front is confirmed after the search, where the configuration asks for that.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        console: Console,
        *,
        confirms: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.console = config, console
        self.tally = Tally(folder, config, clock, confirms)
        self._lock, self._over = Lock(), False  # a thread of rich's draws while events come in
        animated = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self.drawn, console=console, refresh_per_second=4) if animated else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Note):
            return self._say(event.text)
        with self._lock:
            self.tally.refresh()
            self.tally.add(event)
        if isinstance(event, Finished) and (self._live is None or event.error):
            self._say(self._line(event))
        return None

    def drawn(self) -> RenderableType:
        """What the terminal shows now, as wide and as high as it is now."""
        with self._lock:
            self.tally.refresh()
            return live_display(self.tally, self.console, over=self._over)

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=self._live is None)

    def _line(self, event: Finished) -> str:
        took, tally = f"{event.seconds:.1f} s", self.tally
        if event.error:
            return f"{event.work}  failed  {took}  {event.error.splitlines()[0]}"
        if event.trial is None:
            return f"{event.work}  reference {len(tally.references)}/{tally.reference_count}  {took}"
        scores = [f"{name} {number_text(value)}" for name, value in (event.scores or {}).items()]
        pruned, left = [event.pruned] if event.pruned else [], tally.time_left()
        done = f"{len(tally.done)}/{self.config.search.budget}"
        return "  ".join([event.work, done, took, *pruned, *scores, *([left] if left else [])])

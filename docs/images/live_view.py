"""What the terminal showed of a search after some of its trials, drawn again from its log and its tables."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from memcontrol.config import RunConfig, load_config
from memcontrol.report import read_trials
from memcontrol.report.live import LiveView
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Progress

FONT = "DejaVu Sans Mono"
PHASES = (("tune", 0.6), ("sample", 0.25))
"""What the workers are drawn at, and how far they are with it."""


class Clock:
    """Shows the time at which the log's last line so far was written."""

    now = 0.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


def live_view_svg(run: RunFolder, done: int, *, width: int, height: int) -> str:
    """The display of `width` by `height` characters after `done` of the trials in `log.jsonl`, as SVG.

    Trials, scores, times and the time left are those of the run; how far the two trials are that follow is made up.
    """
    lines = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    ends = [i for i, line in enumerate(lines) if line["work"].startswith("trial")]
    past, coming = lines[: ends[done - 1] + 1], lines[ends[done - 1] + 1 :]
    config = settings_of(run)
    console = Console(file=io.StringIO(), record=True, force_terminal=True, width=width, height=height)
    with TemporaryDirectory() as scratch:
        folder, clock = RunFolder(Path(scratch)), Clock()
        clock.now = past[0]["time"] - past[0]["seconds"]
        view = LiveView(config, folder, console, clock=clock)
        keep_until(run, folder, past)
        for line in past:
            clock.now = line["time"]
            view.tally.add(finished(line))
        for (phase, share), line in zip(PHASES, coming, strict=False):
            total = config.tuning.steps if phase == "tune" else config.sampling.images
            view.tally.add(Progress(line["worker"], line["work"], phase, round(share * total), total))
        console.print(view.drawn())
    svg = console.export_svg(title=f"memcontrol search --data {config.data.source} --budget {config.search.budget}")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", FONT)


def settings_of(run: RunFolder) -> RunConfig:
    """The run's settings, with the sampler that it used."""
    config, sampler = load_config(run.config), run.read_front()["sampler"]
    return config.model_copy(update={"search": config.search.model_copy(update={"sampler": sampler})})


def keep_until(run: RunFolder, folder: RunFolder, past: list[dict[str, object]]) -> None:
    """Put into a folder what the run had written when these lines were the log."""
    works, rows = {line["work"] for line in past}, read_trials(run)
    folder.write_trials(list(rows[0]), [row for row in rows if f"trial {row['number']}" in works])
    folder.references.mkdir()
    for path in run.references.glob("*.json"):
        if path.stem in works:
            shutil.copy(path, folder.references)


def finished(line: dict[str, object]) -> Finished:
    """The event that a line of the log tells of."""
    kind, _, number = str(line["work"]).partition(" ")
    trial = int(number) if kind == "trial" else None
    return Finished(line["worker"], line["work"], trial, line["seconds"], line["error"])  # type: ignore[arg-type]

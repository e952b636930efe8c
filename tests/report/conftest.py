"""A finished run's folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_run import COLUMNS, FD, GAP, front_content, member, trial_row
from matplotlib.figure import Figure
from PIL import Image

from memcontrol.run import RunFolder


@pytest.fixture
def finished(tmp_path: Path) -> RunFolder:
    """Four completed trials, three of them on the front, and a failed one."""
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    members = [member(3, 11.0, 0.02), member(1, 14.0, 0.01), member(7, 30.0, 0.001, bits="00001")]
    rows = [trial_row(m["trial"], m["scores"][FD]["value"], m["scores"][GAP]["value"], m["bits"]) for m in members]
    rows += [trial_row(4, 40.0, 0.08), trial_row(5, 0.0, 0.0, state="fail")]
    folder.write_trials(COLUMNS, rows)
    folder.write_json(folder.front, front_content(members))
    folder.write_json(folder.mask(3), {"trainable": {"numel": 31232, "percent": 15.42}})
    for i, one in enumerate(members):
        folder.write_picture(folder.samples(one["trial"]), Image.new("RGB", (90, 40), (250, 10 * i, 0)))
    return folder


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is written, as it was drawn."""
    kept, savefig = list[Figure](), Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        kept.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


@pytest.fixture
def picture_of() -> Callable[[Path], np.ndarray]:
    def read(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    return read

"""Masks of a run's front, copied out as JSON files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memcontrol.errors import RunError, reason
from memcontrol.mask import Mask
from memcontrol.measures import FIDELITY, MEASURES, MEMORIZATION
from memcontrol.run import RunFolder
from memcontrol.score import Score, minimised, parse_name
from memcontrol.study.front import picked


def fidelity_then_copying(names: Sequence[str]) -> list[str]:
    """The objectives with the first that measures fidelity in front, then the first that measures copying."""
    families = {name: MEASURES[parse_name(name)[0]].family for name in names if ":" not in name}
    fidelity = [name for name in names if families.get(name) in FIDELITY][:1]
    copying = [name for name in names if families.get(name) in MEMORIZATION][:1]
    return [*fidelity, *copying, *(name for name in names if name not in fidelity + copying)]


def export_masks(run: Path, pick: str, out: Path) -> list[Path]:
    """Write the front's masks that `pick` names into the folder `out`; returns their paths.

    Args:
        pick: `knee`, `best-fidelity`, `least-copied` or `all`.

    Raises:
        RunError: no finished search in `run`, an empty front, or `out` cannot be written.
        MemControlError: no such pick.
    """
    chosen = picked_masks(run, pick)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [mask.save(out / f"{mask.name}.json") for mask in chosen]
    except OSError as error:
        raise RunError(f"cannot write to {out}: {reason(error)}; name another folder with --out") from error


def picked_masks(run: str | Path, pick: str = "all") -> list[Mask]:
    """The masks of a run's front that `pick` names.

    Args:
        run: folder of a search.
        pick: `knee`, `best-fidelity`, `least-copied` or `all`.

    Raises:
        RunError: no finished search in `run`, or an empty front.
        MemControlError: no such pick.
    """
    folder = RunFolder(Path(run))
    content = folder.read_front()
    names = fidelity_then_copying([objective["name"] for objective in content["objectives"]])
    members = content["front"]
    if not members:
        raise RunError(f"the front of {run} is empty: run the search until a trial completes")
    points = np.array(
        [[minimised(Score.from_json(member["scores"][name])) for name in names] for member in members], dtype=np.float64
    )
    return [Mask.from_pretrained(folder.path / members[i]["mask"]) for i in picked(points, pick)]

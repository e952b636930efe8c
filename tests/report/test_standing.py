"""The front so far is the front, and its hypervolume that of the run's own results, at every trial."""

from typing import Any

import numpy as np
import pytest
from finished_run import AMD, FD, GAP, point

from memcontrol.report.standing import Standing, reference_points, standing
from memcontrol.run import RunFolder
from memcontrol.run_documents import ReferencePoint
from memcontrol.study.front import front_positions, hypervolume

REFERENCES = [ReferencePoint.model_validate(point(*one)) for one in ((140.0, 0.0, 0, None), (10.0, 0.9, 300, 1e-3))]


def row(number: int, **scores: float) -> dict[str, str]:
    names = {"fd": FD, "gap": GAP, "amd": AMD}
    return {"number": str(number), "state": "complete"} | {names[key]: str(value) for key, value in scores.items()}


@pytest.mark.parametrize("objectives", [(FD,), (FD, GAP), (FD, GAP, AMD)], ids=len)
def test_front_and_volumes_are_those_of_all_trials_so_far(objectives: tuple[str, ...]) -> None:
    values = np.random.default_rng(4).uniform((20, 0.1, 0.1), (120, 0.8, 0.9), size=(40, 3)).round(2)
    rows = [row(i, fd=fd, gap=gap, amd=amd) for i, (fd, gap, amd) in enumerate(values)]
    signs, worst = np.array([1.0, 1.0, -1.0]), np.array([140.0, 0.9, -0.4])  # amd of a point is 0.5 - its copy_gap
    points, worst = (values * signs)[:, : len(objectives)], (worst * signs)[: len(objectives)]
    found = standing(list(reversed(rows)), REFERENCES, objectives)
    assert [int(one["number"]) for one in found.front] == front_positions(points)
    assert found.volumes == pytest.approx([hypervolume(points[: i + 1], worst) for i in range(40)])
    assert found.grew == int(np.flatnonzero(np.diff([0.0, *found.volumes]))[-1])
    assert len(found.points) + len(found.others) == 40


def test_equal_trials_are_both_on_the_front() -> None:
    found = standing([row(0, fd=20, gap=0.1), row(1, fd=20, gap=0.1)], REFERENCES, (FD, GAP))
    assert (len(found.front), found.grew) == (2, 0)


def test_trials_that_did_not_complete_or_lack_an_objective_are_left_out() -> None:
    rows = [row(0, fd=20), row(1, fd=20, gap=0.1) | {"state": "fail"}, row(2, fd=20, gap="")]  # type: ignore[arg-type]
    assert empty(standing(rows, REFERENCES, (FD, GAP)))


def empty(found: Standing) -> bool:
    return not len(found.front) + len(found.points) + len(found.others) + len(found.volumes)


def test_full_fine_tuning_is_apart_from_the_untuned_model() -> None:
    assert standing([], REFERENCES, (FD, GAP)).full.tolist() == [[10.0, 0.9]]


def test_references_of_other_objectives_are_left_out() -> None:
    found = standing([row(0, fd=20, gap=0.1)], REFERENCES, ("kid@pixels",))
    assert (len(found.full), found.volumes) == (0, [])


def test_only_references_that_were_scored_are_read(tmp_path: Any) -> None:
    folder = RunFolder(tmp_path)
    failed = {"name": "full-0.003", "points": [], "error": "DivergedError: nan"}
    scored = {"name": "freeze", "points": [point(140.0, 0.0, 0, None)], "error": None}
    for content in (failed, scored):
        folder.write_json(folder.references / f"{content['name']}.json", content)
    (folder.references / "full-0.001.json").write_text("{")
    assert [one.steps for one in reference_points(folder)] == [0]

"""The time left is a range that says no more than what was seen says, and counts all that is still to be done."""

import pytest

from memcontrol.config import RunConfig
from memcontrol.report.tally import Tally
from memcontrol.report.time_left import Ahead, Spread, range_text
from memcontrol.run import RunFolder
from memcontrol.study.events import Finished, Progress

NOTHING = Ahead(trials=0, references=0, begun=[], idle=1, after=0, reference=4.0)


def ahead(**changes: object) -> Ahead:
    return Ahead(**(vars(NOTHING) | changes))


@pytest.mark.parametrize("seconds", [[], [30.0]])
def test_nothing_is_said_before_two_trials(seconds):
    assert Spread.of(seconds) is None
    assert ahead(trials=9).text(Spread.of(seconds)) is None


def test_a_range_is_never_narrower_than_searches_drift():
    assert Spread.of([100.0] * 30) == Spread(85.0, 100.0, 140.0)


def test_a_range_holds_what_most_trials_took():
    seen = Spread.of([10.0, 10.0, 200.0] * 8)
    assert (seen.low, seen.high) == (10.0, 200.0)


def test_a_machine_that_slept_says_little():
    assert Spread.of([20.0, 30.0, 28.0, 50_000.0]).high <= 3 * 30
    assert Spread.of([20.0] * 19 + [50_000.0]).mean == pytest.approx(22.0)


def test_only_late_trials_count():
    assert Spread.of([900.0] * 100 + [10.0] * 20).mean == 10.0


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 0.0),
        ({"trials": 5}, 50.0),
        ({"trials": 5, "idle": 2}, 30.0),
        ({"trials": 1, "references": 1}, 50.0),
        ({"trials": 1, "references": 1, "idle": 2}, 40.0),
        ({"after": 15, "idle": 2}, 80.0),
        ({"begun": [(1.0, 4.0)], "idle": 0}, 6.0),
        ({"begun": [(1.0, 400.0)], "idle": 0, "trials": 1}, 10.0),
        ({"begun": [(4.0, 10.0), (1.0, 5.0)], "idle": 0, "trials": 2}, 30.0),
        ({"trials": 1_000_000, "idle": 4}, 2_500_000.0),
        ({"trials": 9, "speed": 3.0}, 30.0),
    ],
    ids=str,
)
def test_workers_take_one_piece_after_the_other(changes, seconds):
    assert ahead(**changes).seconds(10.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (480, 840, "8 to 14 min"),
        (485, 500, "8 min"),
        (20, 80, "20 to 80 s"),
        (70, 130, "70 s to 2 min"),
        (5000, 9000, "83 min to 2 h 30 min"),
        (0, 0, "10 s"),
    ],
)
def test_ranges_are_written_short(low, high, text):
    assert range_text(low, high) == text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(tmp_path, clock) -> Tally:
    """Of a search of 12 trials with two references, which is not confirmed."""
    search = {"budget": 12, "trajectory_rates": [1e-3], "trajectory_points": [1.0, 2.0]}
    config = RunConfig.model_validate({"search": search, "confirm": {"seeds": 0}})
    return Tally(RunFolder(tmp_path), config, clock)


def trial(number: int, seconds: float, worker: int = 0) -> Finished:
    return Finished(worker, f"trial {number}", number, seconds)


def left(tally: Tally) -> Ahead:
    return tally._ahead(10.0)


def test_proposals_between_trials_count(tally, clock):
    tally.add(Progress(0, "start", "load", 0, 1))
    clock.now = 100.0
    tally.add(Progress(0, "trial 0", "tune", 1, 2))
    for number, ended in ((0, 110.0), (1, 125.0)):
        clock.now = ended
        tally.add(trial(number, 10.0))
    assert tally.seconds == [10.0, 15.0], "loading does not, five seconds of a proposal do"


def test_work_that_began_is_not_counted_twice(tally, clock):
    assert left(tally) == ahead(trials=12, references=2, idle=0, reference=3.0)
    tally.add(Progress(0, "full-0.001", "tune", 1, 2))
    tally.add(Progress(1, "start", "load", 0, 1))
    clock.now = 4.0
    assert left(tally) == ahead(trials=12, references=1, begun=[(3.0, 4.0)], idle=1, reference=3.0)
    tally.add(Progress(1, "trial 0", "tune", 1, 2))
    clock.now = 9.0
    assert left(tally) == ahead(trials=11, references=1, begun=[(3.0, 9.0), (1.0, 5.0)], idle=0, reference=3.0)
    tally.add(trial(0, 5.0, worker=1))
    assert left(tally) == ahead(trials=11, references=1, begun=[(3.0, 9.0)], idle=1, reference=3.0)


def test_a_reference_counts_as_long_as_one_took(tally, clock):
    clock.now = 60.0
    tally.add(Finished(0, "full-0.001", None, 60.0))
    tally.add(Finished(1, "freeze", None, 2.0))
    assert left(tally).reference == 6.0


def test_a_failed_trial_takes_none_of_the_budget_and_says_nothing_of_time(tally):
    tally.add(Finished(0, "trial 0", 0, 1.0, "DivergedError: nan"))
    assert (tally.seconds, left(tally).trials) == ([], 12)


def test_what_other_hosts_finish_is_speed(tally, tmp_path):
    tally.add(trial(0, 10.0))
    tally.add(trial(2, 10.0))
    rows = [{"number": number, "state": "complete", "mask": "1"} for number in range(6)]
    tally.folder.write_trials(["number", "state", "mask"], rows)
    tally.refresh()
    assert left(tally).speed == 3.0


def test_an_earlier_part_of_the_run_is_not_speed(tmp_path, tally):
    tally.folder.write_trials(["number", "state", "mask"], [{"number": 0, "state": "complete", "mask": "1"}])
    again = Tally(tally.folder, tally.config, tally.clock)
    again.add(trial(1, 10.0))
    assert left(again) == ahead(trials=10, references=2, idle=1, reference=3.0)

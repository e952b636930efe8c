"""The shared study: exactly the budget, no candidate twice, and what fails, stops or does not belong."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState

from memcontrol.errors import RunError
from memcontrol.groups import ParameterGroup
from memcontrol.score import Score
from memcontrol.study.budget import SEARCH
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.ledger import Ledger
from memcontrol.study.proposals import Proposer
from memcontrol.study.shared import CLAIMED_BY, was_interrupted
from memcontrol.study.storage import quiet

OBJECTIVES = ("fd@pixels", "copy_gap@pixels")
IDENTITY = {"seed": "0", "weights": "sha256:ab"}


pytestmark = pytest.mark.usefixtures("errors_only")


@pytest.fixture
def hopeless(monkeypatch):
    """So many failures with nothing completed end a search: fewer than usual, to be quick."""
    monkeypatch.setattr("memcontrol.study.budget.HOPELESS", 2)
    return 2


def ledger(folder, *, budget=4, names="abcd", identity=IDENTITY, rates=(1e-3, 1e-3)):
    groups = tuple(ParameterGroup(name, "full", (f"{name}.weight",), 10) for name in names)
    space = CandidateSpace(groups, (), RateGrid.between(*rates), steps=5)
    return Ledger(folder, Proposer(space, "random", ("minimize", "minimize"), 0), identity=identity, budget=budget)


def complete(book, work, value=1.0):
    score = Score(value, value - 1, value + 1, 8, "lower")
    book.complete(work, dict.fromkeys(OBJECTIVES, score), OBJECTIVES, {"worker": 0, "seconds": 0.1})


def candidates(book):
    return [book.proposer.candidate(trial.params) for trial in book.trials()]


def test_a_setting_that_came_later_had_its_default(folder):
    ledger(folder)
    ledger(folder, identity=IDENTITY | {"tuning.steps": "300"})
    with pytest.raises(RunError, match=r"tuning\.steps was 300, now 301"):
        ledger(folder, identity=IDENTITY | {"tuning.steps": "301"})


def test_a_ledger_runs_its_budget_then_stops(folder):
    book = ledger(folder, budget=3)
    numbers = []
    while work := book.claim_trial():
        numbers.append(work.number)
        assert book.proposer.candidate(work.trial.params) == work.candidate
        complete(book, work, float(work.number))
    assert numbers == [0, 1, 2]
    assert [trial.values for trial in book.trials()] == [[float(n)] * 2 for n in range(3)]
    assert len(set(candidates(book))) == 3


def test_claimed_places_count_towards_the_budget(folder):
    book, other = ledger(folder, budget=2), ledger(folder, budget=2)
    first, second = book.claim_trial(), other.claim_trial()
    assert first.candidate != second.candidate
    assert book.claim_trial() is None
    assert book.others_running()
    complete(book, first)
    assert other.claim_trial() is None
    complete(other, second)
    assert not book.others_running()


def test_workers_at_once_run_exactly_the_budget_and_no_candidate_twice(folder):
    """Each claims from a study of its own on one file, and every third piece of work fails."""
    budget, lock, done = 8, threading.Lock(), []

    def work_until_none(_):
        book = ledger(folder, budget=budget)
        while True:
            work = book.claim_trial()
            if work is None:
                if not book.others_running():
                    return
                time.sleep(0.01)
                continue
            with lock:
                done.append(work.number)
            if work.number % 3 == 1:
                book.fail(work, "made to fail", {})
            else:
                complete(book, work)

    ledger(folder)  # as a search does before it starts workers
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work_until_none, range(4)))
    book = ledger(folder)
    states = [trial.state for trial in book.trials()]
    assert states.count(TrialState.COMPLETE) == budget
    assert len(states) == len(done) == len(set(done)) == budget + states.count(TrialState.FAIL)
    assert states.count(TrialState.FAIL) == len([n for n in done if n % 3 == 1]) > 0
    assert len(set(candidates(book))) == len(states)


def test_failures_do_not_use_the_budget_and_their_candidates_do_not_return(folder):
    book = ledger(folder, budget=2)
    failed = book.claim_trial()
    book.fail(failed, "DivergedError: loss is nan", {"worker": 3, "seconds": 1.5})
    while work := book.claim_trial():
        assert work.candidate != failed.candidate
        complete(book, work)
    assert len(book.counted()) == 2
    first = book.trials()[0]
    assert first.state == TrialState.FAIL
    assert not was_interrupted(first)
    assert first.user_attrs.pop(CLAIMED_BY).endswith(f":{os.getpid()}")
    assert first.user_attrs == {"error": "DivergedError: loss is nan", "worker": 3, "seconds": 1.5}


def test_an_interrupted_candidate_comes_again(folder):
    book = ledger(folder, budget=2)
    stopped = book.claim_trial()
    book.abandon(stopped)
    assert was_interrupted(book.trials()[0])
    again = book.claim_trial()
    assert again.candidate == stopped.candidate
    assert again.number != stopped.number
    complete(book, again)
    complete(book, book.claim_trial())
    assert book.claim_trial() is None
    assert len(book.counted()) == 2


def test_a_larger_budget_goes_on_where_the_last_stopped(folder):
    book = ledger(folder, budget=2)
    while work := book.claim_trial():
        complete(book, work)
    before = [trial.params for trial in book.trials()]
    more = ledger(folder, budget=5)
    while work := more.claim_trial():
        complete(more, work)
    assert [trial.params for trial in more.trials()][:2] == before
    assert len(more.counted()) == 5
    assert ledger(folder, budget=1).claim_trial() is None


def test_an_exhausted_space_ends_early(folder):
    book = ledger(folder, budget=50, names="ab")
    while work := book.claim_trial():
        complete(book, work)
    assert len(book.counted()) == book.proposer.space.size == 4


def test_another_identity_is_refused_by_name(folder):
    ledger(folder)
    ledger(folder)
    with pytest.raises(RunError, match=r"other settings: seed was 0, now 1; use the same settings to resume it, or"):
        ledger(folder, identity=IDENTITY | {"seed": "1"})
    with pytest.raises(RunError, match=r"weights was sha256:ab, now sha256:cd"):
        ledger(folder, identity=IDENTITY | {"weights": "sha256:cd"})
    assert ledger(folder).study.user_attrs["identity"] == IDENTITY


def test_what_an_earlier_launch_left_running_is_released(folder):
    killed = ledger(folder, budget=1)
    lost = killed.claim_trial()
    assert killed.claim_reference(("full", "freeze")).name == "full"
    book = ledger(folder, budget=1)
    assert book.claim_trial() is None
    assert book.claim_reference(("full",)) is None
    assert book.release_stale() == 1
    assert book.claim_reference(("full",)).name == "full"
    assert was_interrupted(book.trials()[0])
    assert book.claim_trial().candidate == lost.candidate
    assert ledger(folder).release_stale() == 1


def test_a_launch_killed_while_it_claimed_can_be_resumed(folder):
    """Killed after the candidate was queued, and, another time, after half of its parameters were written."""
    book = ledger(folder, budget=2)
    book.study.enqueue_trial(book.proposer.params(book.proposer.space.baselines()[0]))
    with quiet():
        partial = book.study.ask()
    partial.suggest_categorical("a", (False, True))
    book.study.enqueue_trial(book.proposer.params(book.proposer.space.baselines()[1]))
    assert {trial.state for trial in book.trials()} == {TrialState.RUNNING, TrialState.WAITING}
    resumed = ledger(folder, budget=2)
    assert resumed.release_stale() == 1
    tried = set()
    while work := resumed.claim_trial():
        assert resumed.proposer.candidate(work.trial.params) == work.candidate
        tried.add(work.candidate)
        complete(resumed, work)
    assert tried == set(book.proposer.space.baselines()[:2]), "neither of those that were queued is lost"
    assert len(resumed.counted()) == 2


def test_a_reference_that_failed_is_scored_again_by_the_next_launch(folder):
    book, names = ledger(folder), ("full", "freeze")
    point = {"learning_rate": None, "steps": 0, "loss": None, "scores": {}}
    assert book.write_reference(book.claim_reference(names), [], 1.0, "DivergedError: loss is nan")
    assert book.write_reference(book.claim_reference(names), [point], 1.0)
    assert book.references() == {"freeze": [point]}
    assert book.claim_reference(names) is None
    book.release_stale()
    assert [book.claim_reference(names).name, book.claim_reference(names)] == ["full", None]


def test_references_that_an_older_version_wrote_are_taken_over(folder):
    point = {"learning_rate": None, "steps": 0, "loss": None, "scores": {}}
    folder.write_json(folder.references / "freeze.json", {"name": "freeze", "points": [point], "error": None})
    folder.write_json(folder.references / "full.json", {"name": "full", "points": [], "error": "out of memory"})
    book = ledger(folder)
    assert book.references() == ledger(folder).references() == {"freeze": [point]}
    assert [book.claim_reference(("full", "freeze")).name, book.claim_reference(("full", "freeze"))] == ["full", None]


def test_a_finished_launch_has_nothing_to_release(folder):
    book = ledger(folder, budget=1)
    complete(book, book.claim_trial())
    assert book.release_stale() == 0
    assert len(book.counted()) == 1


def test_failures_alone_end_the_search_with_their_reason(folder, hopeless):
    book = ledger(folder, budget=12)
    for i in range(hopeless):
        book.fail(book.claim_trial(), f"reason {i}", {})
    with pytest.raises(RunError, match=rf"{hopeless} trials failed, the last because: reason {hopeless - 1}"):
        book.claim_trial()


def test_as_many_failures_among_more_successes_do_not(folder, hopeless):
    book = ledger(folder, budget=12)
    for _ in range(hopeless + 1):
        complete(book, book.claim_trial())
    for i in range(hopeless):
        book.fail(book.claim_trial(), f"reason {i}", {})
    assert book.claim_trial() is not None


def test_interruptions_are_not_failures(folder, hopeless):
    book = ledger(folder, budget=12)
    for _ in range(hopeless):
        book.abandon(book.claim_trial())
    assert book.claim_trial() is not None


def test_each_reference_is_claimed_and_written_once(folder):
    book, other = ledger(folder), ledger(folder)
    names = ("full-0.001", "full-0.003", "freeze")
    works = [book.claim_reference(names), other.claim_reference(names), book.claim_reference(names)]
    assert [work.name for work in works] == list(names)
    assert other.claim_reference(names) is None
    points = [{"learning_rate": 0.001, "steps": 5, "loss": 0.5, "scores": {}}]
    book.write_reference(works[0], points, 1.0)
    book.write_reference(works[2], [{"learning_rate": None, "steps": 0, "loss": None, "scores": {}}], 1.0)
    other.release_stale()
    assert other.references().keys() == {"full-0.001", "freeze"}
    assert other.references()["full-0.001"] == points
    assert [other.claim_reference(names).name, other.claim_reference(names)] == ["full-0.003", None]
    assert not book.write_reference(works[1], points, 1.0), "given to another in the meantime"


def test_scores_are_kept_with_the_trial(folder):
    book = ledger(folder)
    work = book.claim_trial()
    scores = {
        "copy_gap@pixels": Score(0.5, 0.1, 0.9, 8, "lower", p=0.2, null=(-1.0, 0.0, 1.0)),
        "amd@pixels": Score(0.3, 0.2, 0.4, 8, "higher"),
        "fd@pixels": Score(7.0, 6.0, 8.0, 8, "lower"),
    }
    book.complete(work, scores, OBJECTIVES, {"worker": 1, "seconds": 2.5, "loss": 0.25, "steps": 5})
    (trial,) = ledger(folder).trials()
    assert trial.values == [7.0, 0.5], "in the order of the objectives"
    assert {name: Score.from_json(content) for name, content in trial.user_attrs["scores"].items()} == scores
    assert trial.user_attrs["loss"] == 0.25
    assert optuna.load_study(study_name=SEARCH, storage=f"sqlite:///{folder.study}").best_trials == [trial]

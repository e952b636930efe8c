"""Rungs as workers share them: who is compared with whom, what counts, and what an interruption changes."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState

from memcontrol.config import Rung
from memcontrol.groups import ParameterGroup
from memcontrol.run import RunFolder
from memcontrol.score import Score
from memcontrol.study.candidate import CandidateSpace, RateGrid
from memcontrol.study.ledger import Ledger, TrialWork
from memcontrol.study.proposals import Proposer
from memcontrol.study.rungs import CHECKPOINTS, Judgement, records
from memcontrol.study.trial import Evaluation, Reached
from memcontrol.study.worker import TrialJudge

NAMES = ("fd@pixels", "amd@pixels")
"""The first is minimised, the second maximised."""
RUNG = Rung(share=0.25, images=8)


pytestmark = pytest.mark.usefixtures("errors_only")


def ledger(folder, *, budget=9, minimum=2, eta=2.0, sampler="random"):
    """Of three groups and three rates, 22 candidates; four of them are baselines."""
    groups = tuple(ParameterGroup(name, "full", (f"{name}.weight",), 10) for name in "abc")
    space = CandidateSpace(groups, (), RateGrid.between(1e-3, 3.2e-3), steps=8)
    proposer = Proposer(space, sampler, ("minimize", "maximize"), 0, (True, False))
    return Ledger(folder, proposer, identity={"seed": "0"}, budget=budget, judgement=Judgement(eta, minimum))


def evaluation(fd, amd, steps):
    better = ("lower", "higher")
    scores = {n: Score(v, v, v, 8, b) for n, v, b in zip(NAMES, (fd, amd), better, strict=True)}
    return Evaluation(scores, np.zeros((8, 4, 4, 3), np.uint8), steps, 0.1, 1.0)


def reached(fd, amd, *, rung=RUNG, whole=None):
    steps = round(rung.share * 8)
    return Reached(rung, 8, evaluation(fd, amd, steps), lambda: whole or evaluation(fd, amd, steps))


def finish(book, work, fd, amd):
    book.complete(work, evaluation(fd, amd, 8).scores, NAMES, {"worker": 0, "seconds": 1.0})


def baselines(book, *, fd=5.0, amd=0.5):
    """All known baselines, scored alike at the rung and finished."""
    for _ in book.proposer.space.baselines():
        work = book.claim_trial()
        assert book.judge(work, reached(fd, amd))[0].goes_on
        finish(book, work, fd / 2, amd)
    return book


def test_a_candidate_that_is_behind_is_pruned_and_one_that_is_ahead_goes_on(folder):
    book = baselines(ledger(folder))
    behind, ahead = book.claim_trial(), book.claim_trial()
    assert not book.judge(behind, reached(9.0, 0.1))[0].goes_on
    assert book.judge(ahead, reached(4.0, 0.6))[0].goes_on
    mixed = book.claim_trial()
    assert book.judge(mixed, reached(9.0, 0.9))[0].goes_on, "larger amd is better: none dominates it"


def test_a_known_baseline_is_never_pruned(folder):
    book = ledger(folder, minimum=1)
    good = book.claim_trial()
    book.judge(good, reached(1.0, 0.9))
    for _ in book.proposer.space.baselines()[1:]:
        assert book.judge(book.claim_trial(), reached(99.0, 0.0))[0].goes_on
    assert not book.judge(book.claim_trial(), reached(99.5, 0.0))[0].goes_on


def test_what_one_worker_scores_at_a_rung_another_compares_with(folder):
    one, other = baselines(ledger(folder)), ledger(folder)
    running, behind = one.claim_trial(), other.claim_trial()
    assert running.number != behind.number
    assert one.judge(running, reached(4.0, 0.6))[0].goes_on
    record, may_stand = other.judge(behind, reached(4.5, 0.55))
    assert not may_stand, "the first is still running"
    assert record.goes_on
    (found,) = records(one.trials()[behind.number].user_attrs)
    assert found == replace(record, values=(4.5, 0.55))


def test_a_checkpoint_is_not_looked_at_where_whole_candidates_are_foreseen_to_be_better(folder):
    """Nothing dominates it at its rung, but all images say the same of a checkpoint as few, and ends are better."""
    book = ledger(folder, budget=12)
    for place in range(4):
        work = book.claim_trial()
        assert book.judge(work, reached(5.0 - place, 0.5))[1], "nobody dominates it, and little is known"
        book.keep(work, evaluation(5.0 - place, 0.5, 2), 8)
        finish(book, work, 1.0, 0.5)
    assert not book.judge(book.claim_trial(), reached(1.5, 0.5))[1]
    assert book.judge(book.claim_trial(), reached(1.4, 0.6))[1], "no end has so large an amd"


def test_only_scores_of_the_same_rung_are_compared(folder):
    book = baselines(ledger(folder))
    for rung in (Rung(share=0.5, images=8), Rung(share=0.25, images=16)):
        work = book.claim_trial()
        assert book.judge(work, reached(99.0, 0.0, rung=rung))[0].goes_on, "nobody was there before"


def test_pruned_trials_use_the_budget_exactly(folder):
    """Four workers; every other candidate that is no baseline is bad."""
    books, done = [ledger(folder, budget=9) for _ in range(4)], []

    def work(book):
        while claimed := book.claim_trial():
            bad = claimed.number % 2
            if book.judge(claimed, reached(9.0 + claimed.number if bad else 1.0, 0.1 if bad else 0.9))[0].goes_on:
                finish(book, claimed, 1.0, 0.5)
            else:
                book.prune(claimed, {"worker": 0, "seconds": 0.5})
            done.append(claimed.candidate)

    threads = [threading.Thread(target=work, args=(book,)) for book in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [trial.state for trial in books[0].trials()]
    assert len(states) == len(set(done)) == 9
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert books[0].claim_trial() is None
    pruned = [trial for trial in books[0].trials() if trial.state == TrialState.PRUNED]
    assert all(trial.values is None and not records(trial.user_attrs)[-1].goes_on for trial in pruned)


def test_an_interrupted_candidate_is_judged_anew_and_its_rung_is_forgotten(folder):
    book = baselines(ledger(folder))
    stopped = book.claim_trial()
    first, _ = book.judge(stopped, reached(4.0, 0.6))
    book.abandon(stopped)
    again = book.claim_trial()
    assert again.candidate == stopped.candidate
    second, undominated = book.judge(again, reached(4.0, 0.6))
    assert second == first
    assert undominated, "it is not compared with itself"


def run(book, *, most):
    """Work up to so many trials: what each is, and what became of it; scores depend on the candidate alone."""
    for _ in range(most):
        work = book.claim_trial()
        if work is None:
            break
        quality = 4 - sum(work.candidate.levels) + (work.candidate.learning_rate or 0) * 100
        record, _ = book.judge(work, reached(9.0 - quality, 0.1 * quality))
        if record.goes_on:
            finish(book, work, 4.0 - quality, 0.2 * quality)
        else:
            book.prune(work, {})
    return [(trial.params, trial.state, records(trial.user_attrs), trial.values) for trial in book.trials()]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_resumed_search_decides_and_proposes_what_an_undisturbed_one_does(tmp_path, sampler):
    folders = [RunFolder(tmp_path / name) for name in ("whole", "parts")]
    for made in folders:
        made.prepare()
    whole = run(ledger(folders[0], budget=12, minimum=4, sampler=sampler), most=12)
    run(ledger(folders[1], budget=12, minimum=4, sampler=sampler), most=7)
    assert run(ledger(folders[1], budget=12, minimum=4, sampler=sampler), most=12) == whole
    assert {state for _, state, _, _ in whole} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_checkpoints_that_none_dominates_are_scored_by_all_images_and_others_are_not(folder):
    book, drawn = baselines(ledger(folder)), []

    def draw(work, found, at=None):
        drawn.append((work.number, found.steps, at))

    def judged(checkpoints, fd, amd):
        work = book.claim_trial()
        asked = []
        whole = evaluation(fd - 1, amd, 2)
        seen = replace(reached(fd, amd), whole=lambda: asked.append(1) or whole)
        judge = TrialJudge(book, work, draw, checkpoints=checkpoints)
        goes_on = judge(seen)
        return SimpleNamespace(
            work=work, goes_on=goes_on, asked=len(asked), kept=book.trials()[work.number].user_attrs.get(CHECKPOINTS)
        )

    best = judged(True, 3.0, 0.6)
    assert (best.goes_on, best.asked, drawn) == (True, 1, [(best.work.number, 2, 2)])
    (kept,) = best.kept
    assert (kept["steps"], kept["of"], kept["scores"]["fd@pixels"]["value"]) == (2, 8, 2.0)
    behind = judged(True, 9.0, 0.1)
    assert (behind.goes_on, behind.asked, behind.kept) == (False, 0, None)
    unwanted = judged(False, 1.0, 0.9)
    assert (unwanted.goes_on, unwanted.asked, unwanted.kept) == (True, 0, None)


def test_a_judge_remembers_where_its_trial_was_pruned(folder):
    book = baselines(ledger(folder))
    judge = TrialJudge(book, book.claim_trial(), lambda *_: None, checkpoints=False)
    assert not judge(reached(9.0, 0.1))
    assert judge.pruned.text == "pruned at 2 of 8 steps"
    assert isinstance(judge.work, TrialWork)

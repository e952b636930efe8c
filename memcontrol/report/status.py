"""How far a study is, in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from memcontrol.report.wording import counted_text, duration_text, number_text
from memcontrol.study.status import Status, Working


def status_lines(status: Status) -> Iterator[str]:
    """What `memcontrol status` says, line by line."""
    yield f"study {status.study} in {status.place}"
    done = sum(status.trials.get(state, 0) for state in ("complete", "pruned"))
    of = "" if status.budget is None else f" of {status.budget}"
    yield f"trials: {done}{of} done ({_counts(status.trials)})"
    if status.references:
        yield f"references: {_counts(status.references)}"
    alive = [worker for worker in status.workers if not worker.lost]
    yield f"{counted_text(len(alive), 'worker')} at work{_left(status)}"
    for worker in status.workers:
        yield _worker(worker)
    if status.front:
        yield f"front so far ({', '.join(status.objectives) or 'objectives'}):"
    for trial, values in sorted(status.front, key=lambda member: member[1]):
        yield f"  trial {trial}  {'  '.join(map(number_text, values))}"


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none"


def _left(status: Status) -> str:
    if status.trials_an_hour is None:
        return ""
    left = "" if status.seconds_left is None else f", about {duration_text(status.seconds_left)} left"
    return f", {number_text(status.trials_an_hour)} trials an hour{left}"


def _worker(worker: Working) -> str:
    heard = f"heard of {duration_text(worker.silent_s)} ago"
    lost = ", so it is lost: its trial is given to another" if worker.lost else ""
    return f"  {worker.worker}  trial {worker.trial}  {heard}{lost}"

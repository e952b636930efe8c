"""Proposals of a Gaussian process with Hamming kernels: random candidates, then the one of largest expected gain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np

from memcontrol.study.candidate import Candidate, CandidateSpace
from memcontrol.study.hamming import Floats
from memcontrol.study.hamming_model import Hints, Model, best_and_random
from memcontrol.study.hamming_places import CandidateRows, Rows

FIRST = 8
"""Candidates with values before there is a model; until then proposals are random."""
WHOLE = 1024
"""Most rows of a space that are all looked at; of a larger one the front's neighbours, and some random ones."""
NEAR, FAR = 4096, 512
CLIMBS = 8
"""How often, in a space that is not looked at as a whole, the best row's own neighbours are looked at."""
LEARNED = 500
"""Most candidates that the processes are given; of more, the best and random ones."""
MOST_OBJECTIVES = 2


@dataclass(frozen=True)
class Known:
    """What is known of a space.

    Attributes:
        done: candidates with values.
        values: theirs, `(N, M)`, to be minimised, M 1 or 2; those that are not finite are left out.
        running: candidates whose values are not there yet.
        seen: candidates that are not to be proposed, those two among them.
    """

    done: Sequence[Candidate]
    values: Floats
    running: Sequence[Candidate]
    seen: Iterable[Candidate]


def proposed(space: CandidateSpace, known: Known, rng: np.random.Generator, hints: Hints | None = None) -> Candidate:
    """An unseen candidate of a space that has one.

    One that trains nothing is not learned from, since training anything at all makes a difference that no group's own
    effect explains (`experiments/benchmarks/samplers`), and it is proposed last: every search has it as a reference.

    Candidates that are running are believed to become what the processes say, so that what they would add is not
    looked for again.
    """
    rows = CandidateRows(space)
    passed = set(known.seen)
    if (nothing := _nothing(space)) is not None and len(passed | {nothing}) < space.size:
        passed.add(nothing)
    seen = {row.tobytes() for row in rows.rows(passed)}
    trained = np.array([candidate != nothing for candidate in known.done], dtype=bool)
    finite = np.flatnonzero(np.isfinite(known.values).all(axis=1) & trained)
    if len(finite) < FIRST:
        return rows.candidate(_random(rows, seen, rng))
    kept = finite[best_and_random(known.values[finite], LEARNED, rng)]
    model = Model.fitted(rows, rows.rows([known.done[i] for i in kept]), known.values[kept], rng, hints)
    return rows.candidate(_best(model.believing(rows.rows(known.running)), seen, rng))


def _nothing(space: CandidateSpace) -> Candidate | None:
    """The candidate that trains nothing, where a space has one."""
    return None if space.always else space.candidate([0] * len(space.groups), space.rates.first)


def _random(rows: CandidateRows, seen: Set[bytes], rng: np.random.Generator) -> Rows:
    while not len(found := rows.unseen(rows.random(FAR, rng), seen)):
        pass
    first: Rows = found[0]
    return first


def _best(model: Model, seen: Set[bytes], rng: np.random.Generator) -> Rows:
    space = model.space
    if space.product <= WHOLE:
        return model.best(rng.permutation(space.unseen(space.every(), seen)))[0]
    near = space.near(model.rows[model.front], NEAR, rng)
    pool = space.unseen(np.concatenate([near, space.random(FAR, rng)]), seen)
    best, gain = model.best(pool if len(pool) else _random(space, seen, rng)[None])
    for _ in range(CLIMBS):
        beside = space.unseen(space.beside(best), seen)
        higher, gain_there = model.best(beside) if len(beside) else (best, gain)
        if gain_there <= gain:
            break
        best, gain = higher, gain_there
    return best

"""How long a search takes to 95 % of the true hypervolume, replayed on the table of masks: with rungs, with hints.

    python experiments/benchmarks/samplers/seconds.py

Reads the table of `../mask_table`, whose trainings were looked at on the way, and the one-shot scores of `../one_shot`
where they are there; trains nothing. Writes seconds.json and prints the table of the README.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from problems import ONE_SHOT, TABLE, Problem, table_problem
from strategies import HINTED, Hinted, Tried, without_baselines

from memcontrol.study.candidate import Candidate
from memcontrol.study.proposals import Proposer
from memcontrol.study.rungs import RUNGS, Record, places

HERE = Path(__file__).parent
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
GOAL = 0.95
LADDERS: dict[str, tuple[float, ...]] = {"": (), "+rung 0.25": (0.25,), "+rungs 0.25, 0.5": (0.25, 0.5)}
SAMPLERS = ("random", "tpe", "hamming")
ETA, MINIMUM = 2.0, 8
"""As a search's default: the best half goes on, once eight were at the rung."""
WORKERS = 2


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one row of the table.

    Attributes:
        tuned: of all of its steps.
        sampled: of sampling and scoring all images.
        count: images of a look.
        total: of all.
        looks: share of the steps -> fd and copy_gap that were seen there.
    """

    tuned: float
    sampled: float
    count: int
    total: int
    looks: dict[float, tuple[float, float]]

    def until(self, ladder: Sequence[float], stopped: float | None) -> float:
        """With a look at each rung up to where it was stopped."""
        reached = [share for share in ladder if stopped is None or share <= stopped]
        spent = len(reached) * self.sampled * self.count / self.total
        return spent + (self.tuned + self.sampled if stopped is None else stopped * self.tuned)


def costs(table: Path, seed: int) -> dict[str, Cost]:
    """Mask -> the costs of its training under a seed.

    The untuned model's row, which has no looks, is all sampling and scoring; that is taken off the others once for the
    end and for each look in proportion to its images.
    """
    facts = json.loads((table / "table.json").read_text())
    shares, count = [rung["share"] for rung in facts["rungs"]], facts["rungs"][0]["images"]
    rows = {
        row["mask"]: row
        for file in sorted(table.glob("masks-*.csv"))
        for row in csv.DictReader(file.open())
        if row["seed"] == str(seed)
    }
    untuned = rows.get("0" * len(facts["groups"]))
    if untuned is None:
        raise SystemExit(f"{table} has no row of the untuned model yet, from which the seconds of sampling are taken")
    sampled, found = float(untuned["cpu_s"]), {}
    for mask, row in rows.items():
        looks, tuned = dict[float, tuple[float, float]](), 0.0
        if row is not untuned:
            looks = {share: (float(row[f"{FD} at {share:g}"]), float(row[f"{GAP} at {share:g}"])) for share in shares}
            tuned = max(0.0, float(row["cpu_s"]) - sampled * (1 + len(shares) * count / facts["images"]))
        found[mask] = Cost(tuned, sampled, count, facts["images"], looks)
    return found


@dataclass
class Search:
    """One search, trial after trial.

    Attributes:
        proposer: where candidates come from, unless there are hints.
        hinted: where they come from with hints.
        spent: CPU seconds so far; those of hints are there from the start.
        finished: places of candidates trained to their end.
        share: of the best hypervolume, by the front of what was seen.
    """

    on: Problem
    costs: dict[str, Cost]
    ladder: tuple[float, ...]
    proposer: Proposer
    hinted: Hinted | None = None
    spent: float = 0.0
    share: float = 0.0
    finished: list[int] = field(default_factory=list)
    trials: list[FrozenTrial] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    looked: dict[float, list[tuple[float, float]]] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Until the goal is reached, or nothing is left."""
        while self.share < GOAL and (candidate := self.proposed()) is not None:
            self.take(candidate)
        return {
            "cpu_s": round(self.spent, 1),
            "trials": sum(trial.state != TrialState.FAIL for trial in self.trials),
            "finished": len(self.finished),
            "share": round(self.share, 4),
        }

    def proposed(self) -> Candidate | None:
        """The next candidate, from hints where there are any."""
        if self.hinted is not None:
            return self.hinted.next(self.tried)
        return self.proposer.next(self.trials, len(self.trials))

    def take(self, candidate: Candidate) -> None:
        """Train it, as far as its rungs let it; one that is not in the table costs nothing and tells nothing."""
        values = self.on.values(candidate)
        self.tried.append(Tried(candidate, values))
        if values is None:
            self.told(candidate, TrialState.FAIL, None, [])
            return
        reached, stopped = self.climbed(self.costs[candidate.mask])
        self.spent += self.costs[candidate.mask].until(self.ladder, stopped)
        if stopped is not None:
            self.told(candidate, TrialState.PRUNED, None, reached)
            return
        self.told(candidate, TrialState.COMPLETE, list(values), reached)
        self.finished.append(self.on.places[candidate])
        self.share = self.on.delivered(self.finished)

    def climbed(self, cost: Cost) -> tuple[list[dict[str, Any]], float | None]:
        """The records of the rungs that it reaches, and the rung at which it is stopped."""
        reached = []
        for share in self.ladder if cost.looks else ():
            seen = self.looked.setdefault(share, [])
            seen.append(cost.looks[share])
            goes_on = len(seen) <= MINIMUM or int(places(np.array(seen))[-1]) < np.ceil(len(seen) / ETA)
            record = Record(share, cost.count, 1, 1, cost.looks[share], goes_on)
            reached.append(asdict(record))
            if not goes_on:
                return reached, share
        return reached, None

    def told(self, candidate: Candidate, state: TrialState, values: list[float] | None, reached: list[Any]) -> None:
        """Add a trial to what the sampler learns from."""
        params, distributions = self.proposer.params(candidate), self.proposer.distributions()
        trial = create_trial(
            state=state, values=values, params=params, distributions=distributions, user_attrs={RUNGS: reached}
        )
        trial.number = len(self.trials)
        self.trials.append(trial)


def hint_seconds(seed: int, masks: int | None) -> float:
    """What the shared tensors and the scores of so many masks on them cost; of all masks where None."""
    shared = json.loads((ONE_SHOT / f"shared-{seed}.json").read_text())["cpu_s"]
    with (ONE_SHOT / f"scores-{seed}.csv").open() as stream:
        scored = [float(row["cpu_s"]) for row in csv.DictReader(stream) if row["adapt"] == "0" and row["cpu_s"]]
    return float(shared + (sum(scored) if masks is None else np.mean(scored) * masks))


def searches(on: Problem, seed: int, repetition: int, table: Path) -> Iterator[tuple[str, Search]]:
    """Every way to search, by name."""
    known, space = costs(table, seed), without_baselines(on.space)
    for name in SAMPLERS:
        for ending, ladder in LADDERS.items():
            proposer = Proposer(space, name, ("minimize", "minimize"), repetition, (True, False))
            yield f"{name}{ending}", Search(on, known, ladder, proposer)
    for name, masks in HINTED.items() if on.hints is not None else ():
        proposer = Proposer(space, "random", ("minimize", "minimize"), repetition)
        hinted = Hinted(space, repetition, on, masks)
        yield name, Search(on, known, (), proposer, hinted, spent=hint_seconds(seed, masks))


def table_of(lines: list[dict[str, Any]]) -> str:
    """Medians over repetitions, and how many of them reached the goal."""
    rows = [f"| search | reached {GOAL:.0%} | CPU min | wall min, {WORKERS} workers | trials | of them to the end |"]
    rows.append("|" + "---|" * 6)
    for name in dict.fromkeys(line["search"] for line in lines):
        own = [line for line in lines if line["search"] == name]
        reached = [line for line in own if line["share"] >= GOAL]
        if not reached:
            rows.append(f"| {name} | 0 of {len(own)} |  |  |  |  |")
            continue
        low, middle, high = np.quantile([line["cpu_s"] / 60 for line in reached], (0.25, 0.5, 0.75))
        trials, whole = (int(np.median([line[key] for line in reached])) for key in ("trials", "finished"))
        spent = f"{middle:.1f} ({low:.1f} to {high:.1f}) | {middle / WORKERS:.1f}"
        rows.append(f"| {name} | {len(reached)} of {len(own)} | {spent} | {trials} | {whole} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds, lines = json.loads((options.table / "table.json").read_text())["seeds"], list[dict[str, Any]]()
    for repetition in range(options.repetitions):
        on = table_problem(repetition, options.table)
        for name, search in searches(on, seeds[repetition % len(seeds)], repetition, options.table):
            lines.append({"search": name, "repetition": repetition, **search.run()})
    (HERE / "seconds.json").write_text(json.dumps(lines, indent=1) + "\n")
    print(table_of(lines))


if __name__ == "__main__":
    main()

"""Replays search strategies on the table of masks and on synthetic problems, and keeps how good their fronts are.

    python experiments/benchmarks/samplers/replay.py --problems brain additive-8 pairwise-8 --repetitions 30

Each repetition of a strategy is one JSON line of replays-I.jsonl in this folder: the share of the best hypervolume
after 1 to `--budget` trainings. Lines that are there are not computed again; `--worker I/N` computes every Nth.
`summarise.py` makes the tables.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from problems import SYNTHETIC, TABLE, Problem, table_problem
from strategies import HINTED, STRATEGIES, Strategy, Tried, strategy

HERE = Path(__file__).parent
BRAIN = "brain"


@lru_cache(maxsize=1)
def problem(name: str, repetition: int, table: Path) -> Problem:
    return table_problem(repetition, table) if name == BRAIN else SYNTHETIC[name].draw(repetition)


def replay(on: Problem, by: Strategy, budget: int, missing_cost: int) -> dict[str, Any]:
    """One search.

    Args:
        missing_cost: what proposing a candidate that the table does not have takes off the budget.
    """
    history: list[Tried] = []
    tried: list[int] = []
    curves: dict[str, list[float]] = {"delivered": [], "reached": []}
    spent, took = 0, time.process_time()
    while spent < budget and (candidate := by.next(history)) is not None:
        values = on.values(candidate)
        history.append(Tried(candidate, values))
        spent += missing_cost if values is None else 1
        if values is not None:
            tried.append(on.places[candidate])
    took = time.process_time() - took
    for count in range(1, budget + 1):
        for kind, curve in curves.items():
            curve.append(round(getattr(on, kind)(tried[:count]), 5) if tried else 0.0)
    return curves | {"seconds": round(took, 3), "missing": len(history) - len(tried)}


def lines() -> list[dict[str, Any]]:
    """What is there, without a line that an interruption cut off."""
    found = []
    for file in sorted(HERE.glob("replays-*.jsonl")):
        found += [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    return found


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("problem", "trained", "strategy", "repetition", "budget", "missing_cost"))


def works(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Problem]]:
    known = {key(line) for line in lines()}
    part, parts = options.worker
    jobs = [(r, name, by) for r in range(options.repetitions) for name in options.problems for by in options.strategies]
    for repetition, name, by in jobs[part::parts]:
        drawn = problem(name, repetition, options.table)
        line = {"problem": name, "trained": int(np.isfinite(drawn.seen).all(1).sum()), "strategy": by}
        line |= {"repetition": repetition, "budget": options.budget, "missing_cost": options.missing_cost}
        if key(line) not in known and (by not in HINTED or drawn.hints is not None):
            yield line, drawn


def share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 0 <= I < N, such as 0/2")
    return int(part), int(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=(BRAIN, *SYNTHETIC), default=list(SYNTHETIC))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--missing-cost", type=int, choices=(0, 1), default=0)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--worker", type=share, default=(0, 1), metavar="I/N")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = HERE / f"replays-{options.worker[0]}.jsonl"
    if file.exists():  # a line that an interruption cut off is computed again
        file.write_text("".join(f"{line}\n" for line in file.read_text().split("\n")[:-1]))
    with file.open("a") as stream:
        for line, drawn in works(options):
            made = strategy(line["strategy"], drawn, line["repetition"])
            stream.write(json.dumps(line | replay(drawn, made, options.budget, options.missing_cost)) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()

"""What the kernel of sizes adds to `hamming`'s predictions, on trainings that it was not chosen by.

    python experiments/benchmarks/samplers/sizes.py

Reads the trainings of `../pruning`: 30 candidates of `stage-kinds` under each of five seeds, their rates among them.
The model is fitted to 20 of a seed's candidates and predicts the others, with the kernel and without; each seed is
divided twelve times at random. Errors are squared, in units of the fitted values' variance. Writes sizes.json, and
prints the README's table.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.study import hamming_model
from memcontrol.study.hamming import USUAL, Floats
from memcontrol.study.hamming_model import Model
from memcontrol.study.hamming_places import CandidateRows, Rows
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
TRAININGS = HERE.parent / "pruning"
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
FITTED, DIVISIONS = 20, 12
KERNELS = {"with sizes": USUAL, "without": (*USUAL[:3], 1e-9)}
"""Usual variances of the model, and of one whose kernel of sizes says nothing."""


def trainings(rows: CandidateRows) -> dict[int, tuple[Rows, Floats]]:
    """Of each seed the candidates that train anything, and their log fd and copy_gap."""
    space, found = rows.space, defaultdict[int, list[Any]](list)
    for file in sorted(TRAININGS.glob("trials-*.jsonl")):
        for text in file.read_text().splitlines():
            line = json.loads(text)
            if line["variant"] == "average" and line["learning_rate"] is not None:
                levels = [int(bit) for bit in line["mask"]]
                row = rows.rows([space.candidate(levels, space.rates.nearest(line["learning_rate"]))])[0]
                found[line["seed"]].append((row, np.log(line["scores"][FD]["value"]), line["scores"][GAP]["value"]))
    return {
        seed: (np.array([one[0] for one in own]), np.array([one[1:] for one in own])) for seed, own in found.items()
    }


def predicted(rows: CandidateRows, known: tuple[Rows, Floats], asked: tuple[Rows, Floats]) -> tuple[Floats, Floats]:
    """Squared errors and log densities, `(2,)` each, means over what is asked."""
    model = Model.fitted(rows, *known, np.random.default_rng(0))
    values = (asked[1] - known[1].mean(axis=0)) / known[1].std(axis=0)
    mean, spread = model.predicted(asked[0])
    variance = spread**2 + np.array([process.variances[-1] for process in model.processes])
    densities = -0.5 * (values - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    return ((values - mean) ** 2).mean(axis=0), densities.mean(axis=0)


def of_seed(rows: CandidateRows, seed: int, candidates: Rows, values: Floats) -> Floats:
    """`(2, 2)` squared errors and log densities of each objective, means over divisions."""
    found = []
    for division in range(DIVISIONS):
        order = np.random.default_rng([seed, 704, division]).permutation(len(values))
        first, others = order[:FITTED], order[FITTED:]
        found.append(predicted(rows, (candidates[first], values[first]), (candidates[others], values[others])))
    mean: Floats = np.mean(found, axis=0)
    return mean


def main() -> None:
    laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
    rows = CandidateRows(laboratory.candidates)
    known, found = trainings(rows), dict[str, Floats]()
    for kernel, usual in KERNELS.items():
        hamming_model.USUAL = usual
        found[kernel] = np.array([of_seed(rows, seed, *known[seed]) for seed in sorted(known)])
    content = {kernel: values.round(4).tolist() for kernel, values in found.items()}
    (HERE / "sizes.json").write_text(json.dumps({"seeds": sorted(known), "errors, log densities": content}) + "\n")
    print("| objective | squared error, with sizes | without | smaller in | log density, with sizes | without |")
    print("|" + "---|" * 6)
    with_sizes, without = found.values()
    for place, name in enumerate((FD, GAP)):
        smaller = int((with_sizes[:, 0, place] < without[:, 0, place]).sum())
        cells = [f"{one[:, kind, place].mean():.3f}" for kind in (0, 1) for one in (with_sizes, without)]
        print(f"| {name} | {cells[0]} | {cells[1]} | {smaller} of {len(known)} seeds | {cells[2]} | {cells[3]} |")


if __name__ == "__main__":
    main()

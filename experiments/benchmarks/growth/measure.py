"""How a trial's cost grows: with the training set, the images, the groups of the space, and the trials of the study.

    python experiments/benchmarks/growth/measure.py --parts trial study

`trial` runs real trials on `brain`; `study` fills a study with a synthetic history and times proposals and storage
alone. Each measurement is one JSON line of runs.jsonl; lines that are there are not computed again. `summarise.py`
makes the tables and the picture.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.trial import FrozenTrial

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.groups import ParameterGroup
from memcontrol.pipeline.loading import load_unet
from memcontrol.run import RunFolder
from memcontrol.score import Score
from memcontrol.study.candidate import Candidate, CandidateSpace, RateGrid
from memcontrol.study.ledger import Ledger
from memcontrol.study.placement import take_device
from memcontrol.study.proposals import Proposer
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
TRAINING = (32, 128, 512, 1024, 4096)
IMAGES = (64, 128, 256, 512, 1024)
GROUPS = (8, 16, 32, 64, 128, 256)
TRIALS = (50, 100, 200, 500, 1000, 2000)
SAMPLERS = ("hamming", "gp", "tpe")
TOO_LONG_S = 15.0
"""A sampler whose proposal took longer is not asked about longer histories of that space."""
REPEATS = 3
Line = dict[str, Any]


class Lines:
    """The file of measurements.

    Attributes:
        said: what all new lines say besides.
    """

    def __init__(self, file: Path, said: Line) -> None:
        self.file, self.said = file, said
        self.known = [json.loads(text) for text in file.read_text().split("\n")[:-1]] if file.exists() else []
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in self.known))

    def find(self, key: Line) -> Line | None:
        """The line of these settings, where it is there."""
        wanted = (key | self.said).items()
        return next((line for line in self.known if wanted <= {k: line.get(k) for k in dict(wanted)}.items()), None)

    def add(self, key: Line, found: Line) -> Line:
        """Write a measurement down."""
        line = key | self.said | {name: round(value, 4) for name, value in found.items()}
        self.known.append(line)
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        return line


# Trials


def configurations(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Line, RunConfig]]:
    """The default trial with one thing changed at a time."""
    default = RunConfig()
    base = default.model_copy(update={"tuning": default.tuning.model_copy(update={"steps": options.steps})})
    for size in options.training:
        data = default.data.model_copy(update={"train_size": size})
        yield {"part": "training", "at": size}, base.model_copy(update={"data": data})
    for count in options.images:
        sampling = default.sampling.model_copy(update={"images": count})
        yield {"part": "images", "at": count}, base.model_copy(update={"sampling": sampling})
    for count in options.groups:
        file = folder / f"groups-{count}.yaml"
        file.write_text(yaml.safe_dump(synthetic_space(count)))
        yield {"part": "groups", "at": count}, base.model_copy(update={"space": str(file)})


def synthetic_space(count: int) -> Line:
    """All parameters of `tiny`, in its order, in so many groups of about as many tensors."""
    names = [name for name, _ in load_unet("tiny").named_parameters()]
    shares = np.array_split(np.array(names), count)
    parts = [
        {"method": "full", "select": share.tolist(), "group_by": "all", "name": f"part.{number}"}
        for number, share in enumerate(shares)
    ]
    return {
        "schema": "memcontrol/search-space@1",
        "name": f"parts-{count}",
        "learning_rate": {"low": 3e-4, "high": 1e-2},
        "parts": parts,
    }


def measured_trial(config: RunConfig, cache: Cache) -> Line:
    """CPU seconds of loading and encoding, and of one trial by phase; every other group trains."""
    began = time.process_time()
    laboratory = Laboratory(config, cache=cache, device="cpu")
    laboratory.scorer(laboratory.scorer.real.fidelity)  # features of real images, which all trials of a run share
    loaded = time.process_time() - began
    space, reached = laboratory.candidates, {"tune": time.process_time()}
    levels = [number % 2 for number in range(len(space.groups))]

    def heard(phase: str, _done: int, _total: int) -> None:
        reached[phase] = time.process_time()

    began = time.process_time()
    rate = space.rates.rate(space.customary_rate(levels))
    laboratory.evaluate(space.trained(levels), rate, config.tuning.steps, heard)
    ended = time.process_time()
    return {
        "once_s": loaded,
        "trial_s": ended - began,
        "tune_s": reached["tune"] - began,
        "sample_s": reached["sample"] - reached["tune"],
        "score_s": ended - reached["sample"],
    }


def trials(options: argparse.Namespace, lines: Lines) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for key, config in configurations(options, Path(folder)):
            if lines.find(key) is None:
                # What a run makes once is made anew for each training set, and for the other parts is there already.
                cold = Path(folder) / f"cache-{key['at']}"
                lines.add(
                    key, measured_trial(config, Cache(cold if key["part"] == "training" else default_cache_folder()))
                )


# Study


def candidate_space(groups: int) -> CandidateSpace:
    """Groups without parameters, named as stages and kinds are, so that known baselines are few."""
    named = [(f"stage{number // 8}.kind{number % 8}", f"p{number}") for number in range(groups)]
    whole = tuple(ParameterGroup(name, "full", (parameter,), 1000) for name, parameter in named)
    return CandidateSpace(whole, (), RateGrid.between(3e-4, 1e-2), 300)


def history(proposer: Proposer, count: int) -> list[FrozenTrial]:
    """So many distinct candidates, baselines first, with two objectives that the groups trade off, and noise."""
    space, rng = proposer.space, np.random.default_rng(607)
    effects = rng.gamma(1.0, size=(2, len(space.groups)))
    chosen = dict.fromkeys(space.baselines())
    while len(chosen) < count:
        levels = rng.permutation(np.arange(len(space.groups)) < rng.integers(1, len(space.groups) + 1)).astype(int)
        chosen[space.candidate(levels.tolist(), int(rng.integers(space.rates.first, space.rates.last + 1)))] = None
    return [finished(proposer, candidate, effects, rng) for candidate in list(chosen)[:count]]


def finished(
    proposer: Proposer, candidate: Candidate, effects: np.ndarray[Any, Any], rng: np.random.Generator
) -> FrozenTrial:
    """A complete trial with as much in it as a real one has."""
    share = effects @ np.array(candidate.levels) / effects.sum(axis=1) + rng.normal(scale=0.05, size=2)
    values = [float(np.exp(3 - 2 * share[0])), float(0.1 * share[1])]
    scores = {name: score_of(value).to_json() for name, value in zip(names(), [*values, *[0.5] * 10], strict=True)}
    attributes = {"scores": scores, "worker": 0, "seconds": 20.0, "loss": 0.1, "steps": candidate.steps}
    return optuna.trial.create_trial(
        params=proposer.params(candidate),
        distributions=proposer.distributions(),
        values=values,
        user_attrs=attributes,
    )


def names() -> tuple[str, ...]:
    scoring = RunConfig().scoring
    return tuple(dict.fromkeys([*scoring.objectives, *scoring.reported]))[:12]


def score_of(value: float) -> Score:
    return Score(value, value - 0.1, value + 0.1, 256, "lower")


def proposals(proposer: Proposer, known: Sequence[FrozenTrial]) -> float:
    """CPU seconds of one proposal."""
    began = time.process_time()
    for repeat in range(REPEATS):
        proposer.next(known, len(known) + repeat)
    return (time.process_time() - began) / REPEATS


def storage(ledger: Ledger) -> float:
    """CPU seconds of claiming a trial and recording its scores, less the proposal, by the random sampler."""
    ledger.trials()  # what a worker that joins a study reads once, and `joining` measures
    spent = 0.0
    for _ in range(REPEATS):
        began = time.process_time()
        work = ledger.claim_trial()
        if work is None:
            raise SystemExit("the study gave no trial: its budget or its space is exhausted")
        ledger.complete(work, {name: score_of(0.5) for name in names()}, names()[:2], {"worker": 0, "seconds": 20.0})
        spent += time.process_time() - began
    known = ledger.trials()
    return spent / REPEATS - proposals(ledger.proposer, known)


def joining(ledger: Ledger) -> float:
    """CPU seconds of a new worker's first look at the study, which reads every trial."""
    joined = Ledger(ledger.folder, ledger.proposer, identity={}, budget=ledger.budget)
    began = time.process_time()
    joined.trials()
    return time.process_time() - began


STORAGE = {"joining": joining, "storage": storage}


def study(options: argparse.Namespace, lines: Lines) -> None:
    directions = ("minimize", "minimize")
    for groups in options.groups:
        space = candidate_space(groups)
        counts = [count for count in options.trials if count <= 0.6 * space.size]
        measures = (*options.samplers, *STORAGE)
        cells = [(count, what) for count in counts for what in measures]
        if all(lines.find({"part": "study", "groups": groups, "at": n, "what": what}) for n, what in cells):
            continue
        proposers = {name: Proposer(space, name, directions, 0) for name in (*options.samplers, "random")}
        known, slow = history(proposers["random"], max(counts)), set[str]()
        with tempfile.TemporaryDirectory() as place:
            folder, filled = RunFolder(Path(place)), 0
            folder.prepare()
            ledger = Ledger(folder, proposers["random"], identity={}, budget=10**6)
            for count in counts:
                ledger.study.add_trials(known[filled:count])
                filled = count
                for what in measures:
                    key = {"part": "study", "groups": groups, "at": count, "what": what}
                    line = lines.find(key)
                    if line is None and what not in slow:
                        if what in STORAGE:
                            seconds = STORAGE[what](ledger)
                        else:
                            seconds = proposals(proposers[what], known[:count])
                        line = lines.add(key, {"cpu_s": seconds})
                    if line is not None and line["cpu_s"] > TOO_LONG_S:
                        slow.add(what)


PARTS = {"trial": trials, "study": study}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--training", nargs="*", type=int, default=TRAINING, help="sizes of the training set")
    parser.add_argument("--images", nargs="*", type=int, default=IMAGES, help="images that a trial samples")
    parser.add_argument("--groups", nargs="*", type=int, default=GROUPS)
    parser.add_argument("--trials", nargs="*", type=int, default=TRIALS, help="lengths of the history")
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--out", type=Path, default=HERE / "runs.jsonl")
    options = parser.parse_args()
    take_device("cpu")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for part in options.parts:
        PARTS[part](options, Lines(options.out, {"steps": options.steps} if part == "trial" else {}))


if __name__ == "__main__":
    main()

"""Pruning replayed on trainings that were not pruned: what each setting saves, and what it loses.

    python experiments/benchmarks/pruning/replay.py

Reads trials-*.jsonl of `measure.py`, writes replays.json and prints the tables of the README. No training: candidates
come in random orders, baselines first, and the program's own rule says at each rung who goes on. With `--fewer-images`
only the front by fewer images is compared with that by all.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measure import HERE, Line, lines
from numpy.typing import NDArray
from scipy.stats import spearmanr

from memcontrol.score import Score, minimised
from memcontrol.study.front import hypervolume
from memcontrol.study.rungs import Judgement, front_numbers, hopeful, may_stand

FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"
LADDERS = ((0.125,), (0.25,), (0.5,), (0.25, 0.5), (0.25, 0.75), (0.5, 0.75), (0.25, 0.5, 0.75))
ETAS, MARGINS = (1.5, 2.0, 3.0, 4.0), (0.0, 1.0)
LINES, SIGNS = (False, False), np.ones(2)
"""Points are logarithms of fd already, and both objectives are minimised."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """One way to prune."""

    ladder: tuple[float, ...]
    images: int
    eta: float
    margin: float
    minimum: int


@dataclass(frozen=True)
class Known:
    """All trainings of one seed and variant.

    Attributes:
        final: `(N, 2)` log fd and copy_gap at the end.
        scores: (share, images) -> the objectives of each training.
        reference: of the hypervolume: the worst of each objective at the end.
    """

    lines: list[Line]
    final: Floats
    scores: dict[tuple[float, int], list[list[Score]]]
    reference: Floats

    @classmethod
    def of(cls, found: list[Line]) -> "Known":
        final = np.array([point(line["scores"]) for line in found])
        scores: dict[tuple[float, int], list[list[Score]]] = defaultdict(list)
        for line in found:
            for rung in line["rungs"]:
                for images, named in rung["scores"].items():
                    scores[rung["share"], int(images)].append([Score.from_json(named[name]) for name in (FD, GAP)])
        return cls(found, final, dict(scores), final.max(axis=0))

    def checkpoint(self, place: int, share: float) -> Floats:
        """Log fd and copy_gap by all images at a share of the steps."""
        (rung,) = [rung for rung in self.lines[place]["rungs"] if rung["share"] == share]
        return point(rung["scores"][str(self.lines[place]["images"])])

    def look(self, place: int, setting: Setting) -> float:
        """CPU seconds of the images that a rung did not sample, where a checkpoint is scored by all."""
        line = self.lines[place]
        return float((1 - setting.images / line["images"]) * line["sampled_s"])

    def cost(self, place: int, setting: Setting, stopped: float | None) -> float:
        """CPU seconds of a training: its steps, its rungs, and the images of its end unless it was stopped."""
        line = self.lines[place]
        reached = [share for share in setting.ladder if stopped is None or share <= stopped]
        rungs = len(reached) * setting.images / line["images"] * line["sampled_s"]
        tuned = {rung["share"]: rung["tuned_s"] for rung in line["rungs"]}
        return float(rungs + (line["tuned_s"] + line["sampled_s"] if stopped is None else tuned[stopped]))


def scaled(points: Floats) -> Floats:
    """`(N, 2)`: log fd, and copy_gap as it is."""
    return np.stack([np.log(points[:, 0]), points[:, 1]], axis=1)


def point(named: dict[str, Any]) -> Floats:
    """Log fd and copy_gap of one JSON object of scores."""
    return scaled(np.array([[named[FD]["value"], named[GAP]["value"]]]))[0]


Ended = dict[int, float | None]


def replayed(known: Known, setting: Setting, order: list[int]) -> tuple[Ended, list[tuple[int, float]]]:
    """Where each training ended: the share at which it was stopped, or None; and the checkpoints, training and share.

    As in a search, those checkpoints are scored by all images that may stand on the front by what came before.
    """
    judgement = Judgement(setting.eta, setting.minimum, setting.margin)
    before: dict[float, list[list[float]]] = {share: [] for share in setting.ladder}
    looked: dict[float, list[tuple[Floats, Floats]]] = {share: [] for share in setting.ladder}
    ended: Ended = {}
    whole, looks = list[Floats](), list[tuple[int, float]]()
    for place in order:
        ended[place] = None
        for share in setting.ladder:
            own = known.scores[share, setting.images][place]
            values, others = [minimised(score) for score in own], np.array(before[share]).reshape(-1, 2)
            goes_on = known.lines[place]["baseline"] or judgement.goes_on(own, others)
            before[share].append(values)
            at, known_whole = scaled(np.array([values]))[0], np.array(whole).reshape(-1, 2)
            if may_stand(at, scaled(others), looked[share], known_whole, logarithmic=LINES, signs=SIGNS):
                looks.append((place, share))
                whole.append(known.checkpoint(place, share))
                looked[share].append((at, whole[-1]))
            if not goes_on:
                ended[place] = share
                break
        if ended[place] is None:
            whole.append(known.final[place])
    return ended, looks


def judged(known: Known, setting: Setting, rng: np.random.Generator) -> dict[str, float]:
    """Shares of the hypervolume and of the seconds of no pruning, in one order."""
    places = np.arange(len(known.lines))
    first = [i for i in places if known.lines[i]["baseline"]]
    order = [*first, *rng.permutation([i for i in places if not known.lines[i]["baseline"]]).tolist()]
    ended, looks = replayed(known, setting, order)
    kept = [place for place, share in ended.items() if share is None]
    spent = sum(known.cost(place, setting, share) for place, share in ended.items())
    looked = spent + sum(known.look(place, setting) for place, _ in looks)
    plain = Setting((), 0, 1.0, 0.0, 1)
    costs = np.cumsum([known.cost(place, plain, None) for place in order])
    everything = hypervolume(known.final, known.reference)

    def unpruned(seconds: float) -> float:
        afforded = order[: max(1, int(np.searchsorted(costs, seconds, side="right")))]
        return hypervolume(known.final[afforded], known.reference) / everything

    checkpoints = np.array([known.checkpoint(place, share) for place, share in looks])
    more = np.vstack([known.final[kept], checkpoints])
    return {
        "hypervolume": hypervolume(known.final[kept], known.reference) / everything,
        "seconds": spent / costs[-1],
        "unpruned for as long": unpruned(spent),
        "with checkpoints": hypervolume(more, known.reference) / everything,
        "seconds with them": looked / costs[-1],
        "unpruned for as long as those": unpruned(looked),
        "pruned": 1 - len(kept) / len(order),
    }


def settings(knowns: list[Known], minimum: int) -> list[Setting]:
    images = sorted({count for known in knowns for _, count in known.scores})[:-1]
    return [
        Setting(ladder, count, eta, margin, minimum)
        for ladder, count, eta, margin in product(LADDERS, images, ETAS, MARGINS)
    ]


def table(knowns: list[Known], orders: int, minimum: int) -> list[dict[str, Any]]:
    """Every setting, its figures averaged over orders and seeds."""
    rows = []
    for setting in settings(knowns, minimum):
        rng = np.random.default_rng(0)
        found = [judged(known, setting, rng) for known in knowns for _ in range(orders)]
        figures = {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}
        rows.append(vars(setting) | figures)
    return sorted(rows, key=lambda row: row["unpruned for as long"] - row["hypervolume"])


def correlations(knowns: list[Known]) -> list[dict[str, Any]]:
    """Spearman's correlation of each rung with the end, averaged over seeds."""
    rows = []
    for share, images in sorted({at for known in knowns for at in known.scores}):
        row: dict[str, Any] = {"share": share, "images": images}
        for place, name in enumerate((FD, GAP)):
            found = []
            for known in knowns:
                early = [hopeful(own[place], 0.0) for own in known.scores[share, images]]
                found.append(spearmanr(early, known.final[:, place]).statistic)
            row[name] = round(float(np.nanmean(found)), 3)
        rows.append(row)
    return rows


def by_fewer_images(knowns: list[Known]) -> list[dict[str, Any]]:
    """What a search would lose that scores by fewer images: the front by those, its hypervolume by all.

    Of the last share before the end, where the recorded trainings have scores by each number of images.
    """
    share, most = max(knowns[0].scores)
    rows = []
    for images in sorted({count for _, count in knowns[0].scores} - {most}):
        kept, ranks = list[float](), list[list[float]]()
        for known in knowns:
            few, all_ = (
                scaled(np.array([[score.value for score in own] for own in known.scores[share, count]]))
                for count in (images, most)
            )
            front = front_numbers(few) == 0
            worst = all_.max(axis=0)
            kept.append(hypervolume(all_[front], worst) / hypervolume(all_, worst))
            ranks.append([float(spearmanr(few[:, place], all_[:, place]).statistic) for place in range(2)])
        row = {"images": images, "hypervolume": float(np.mean(kept)), "worst seed": min(kept)}
        row |= dict(zip((FD, GAP), np.mean(ranks, axis=0).tolist(), strict=True))
        rows.append({name: value if name == "images" else round(value, 4) for name, value in row.items()})
    return rows


def key(line: Line) -> tuple[object, ...]:
    """The same training under each variant."""
    return line["seed"], line["mask"], line["learning_rate"]


def steadiness(grouped: dict[str, dict[int, list[Line]]]) -> list[dict[str, Any]]:
    """Of the trainings that every variant has: how much scores by all images swing on the way, and where they end.

    `fd swing` is the mean absolute change of log fd from a half to three quarters of the steps and from there to the
    end, `gap swing` that of copy_gap; ranks are Spearman's correlations of a half of the steps with the end, averaged
    over seeds.
    """
    common = set.intersection(
        *({key(line) for found in seeds.values() for line in found} for seeds in grouped.values())
    )
    rows = []
    for variant, seeds in grouped.items():
        ways, ranks = list[Floats](), list[list[float]]()
        for found in seeds.values():
            shared = [line for line in found if key(line) in common]
            if not shared:
                continue
            known = Known.of(shared)
            places = range(len(known.lines))
            way = np.array([[known.checkpoint(i, 0.5), known.checkpoint(i, 0.75), known.final[i]] for i in places])
            ways.append(way)
            ranks.append([float(spearmanr(way[:, 0, m], way[:, 2, m]).statistic) for m in range(2)])
        whole = np.concatenate(ways)
        swings = np.abs(np.diff(whole, axis=1)).mean(axis=(0, 1))
        figures = {
            "fd": float(np.exp(whole[:, 2, 0].mean())),
            "copy_gap": float(whole[:, 2, 1].mean()),
            "fd swing": float(swings[0]),
            "gap swing": float(swings[1]),
            "fd rank": float(np.mean(ranks, axis=0)[0]),
            "gap rank": float(np.mean(ranks, axis=0)[1]),
        }
        rows.append({"variant": variant, "trainings": len(whole)} | {name: round(f, 4) for name, f in figures.items()})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--minimum", type=int, default=8)
    parser.add_argument("--shown", type=int, default=15)
    parser.add_argument("--fewer-images", action="store_true", help="that table alone, into fewer_images.json")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    grouped: dict[str, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines(options.out):
        if line["rungs"]:
            grouped[line["variant"]][line["seed"]].append(line)
    if options.fewer_images:
        fewer = by_fewer_images([Known.of(found) for found in grouped["average"].values()])
        print(markdown(fewer))
        (options.out / "fewer_images.json").write_text(json.dumps(fewer, indent=1) + "\n")
        return
    result: dict[str, Any] = {}
    for variant, seeds in grouped.items():
        knowns = [Known.of(found) for found in seeds.values()]
        rows, ranked = table(knowns, options.orders, options.minimum), correlations(knowns)
        result[variant] = {"trainings": {str(s): len(f) for s, f in seeds.items()}, "settings": rows, "ranks": ranked}
        print(f"\n{variant}: {sum(map(len, seeds.values()))} trainings of {len(seeds)} seeds\n")
        print(markdown(ranked))
        print(f"\n{markdown(rows[: options.shown])}")
    if len(grouped) > 1:
        result["steadiness"] = steadiness(grouped)
        print(f"\n{markdown(result['steadiness'])}")
    (options.out / "replays.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

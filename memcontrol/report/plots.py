"""The front as a picture: every trial, the masks that no other dominates, and full fine-tuning's trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memcontrol.report.drawing import WIDE, annotation, frame, separate, write_figure
from memcontrol.report.trajectory import Floats, trajectory, untuned
from memcontrol.report.wording import member_name, number_text, rate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

FRONT, NULL, TRIAL, UNTUNED, RANDOM = "#0072B2", "#009E73", "#b0b0b0", "#000000", "#56B4E9"
FULL = ("#E69F00", "#D55E00", "#CC79A7", "#A6761D", "#7570B3")
"""Colours that colour-blind readers tell apart (Okabe and Ito), and two more; each has its own marker too."""
MARKERS = "^sDvP"
USUAL = (0.025, 0.975)
"""Trials between these quantiles are sure to be in sight, and so are all other points."""


def front_picture(front: dict[str, Any], trials: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw the first objective against each other one, and write a PNG.

    With one objective alone, it is drawn against the trials' numbers.

    Args:
        front: the content of `front.json`.
        trials: the rows of `trials.csv`.
    """
    from matplotlib.figure import Figure

    names = [objective["name"] for objective in front["objectives"]]
    figure = Figure(figsize=(8.0 * max(1, len(names) - 1), 6.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, max(1, len(names) - 1), squeeze=False)[0]
    if len(names) == 1:
        _draw_single(panels[0], front, trials)
    for axes, other in zip(panels, names[1:], strict=False):
        _draw_pair(axes, front, trials, names[0], other)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    write_figure(figure, path)


def _draw_pair(axes: Axes, front: dict[str, Any], trials: Sequence[Mapping[str, str]], first: str, other: str) -> None:
    done = [row for row in trials if row["state"] == "complete"]
    scattered = np.array([[float(row[first]), float(row[other])] for row in done]).reshape(-1, 2)
    members, full = front["front"], trajectory(front)
    _shade_null(axes, [*members, *full], first, other)
    axes.scatter(scattered[:, 0], scattered[:, 1], s=12, color=TRIAL, label="trials", zorder=1)
    labels = _draw_trajectories(axes, full, first, other)
    labels += _draw_front(axes, members, first, other, connect=len(front["objectives"]) == 2)
    confirmed = _draw_confirmed(axes, front, first, other)
    sure = [_values(full, first, other), _with_intervals(members, first, other), confirmed]
    usual = [np.quantile(scattered, USUAL, axis=0)] if len(scattered) else []
    frame(axes, np.concatenate(sure + usual))
    for axis, name in ((axes.xaxis, first), (axes.yaxis, other)):
        _label(axis, name, front)
    _count_hidden(axes, scattered)
    separate(axes, labels + _mark_untuned(axes, untuned(front), first, other))


def _values(scored: Sequence[dict[str, Any]], first: str, other: str) -> Floats:
    """`(N, 2)` values of two scores."""
    values = [[point["scores"][name]["value"] for name in (first, other)] for point in scored]
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def _with_intervals(members: Sequence[dict[str, Any]], first: str, other: str) -> Floats:
    ends = [[m["scores"][name][end] for name in (first, other)] for m in members for end in ("low", "value", "high")]
    return np.array(ends, dtype=np.float64).reshape(-1, 2)


def _shade_null(axes: Axes, scored: Sequence[dict[str, Any]], first: str, other: str) -> None:
    """The middle of all points' null bands, for each axis whose score has one."""
    for name, span, line in ((first, axes.axvspan, axes.axvline), (other, axes.axhspan, axes.axhline)):
        bands = [point["scores"][name]["null"] for point in scored if "null" in point["scores"][name]]
        if bands:
            low, middle, high = np.median(np.array(bands, dtype=np.float64), axis=0)
            span(low, high, color=NULL, alpha=0.10, lw=0, label="null band (95 %): as if nothing were copied", zorder=0)
            line(middle, color=NULL, lw=0.8, ls="--", zorder=0)


def _draw_trajectories(axes: Axes, full: Sequence[dict[str, Any]], first: str, other: str) -> list[Annotation]:
    labels = []
    for i, rate in enumerate(sorted({point["learning_rate"] for point in full})):
        points = sorted((p for p in full if p["learning_rate"] == rate), key=lambda point: int(point["steps"]))
        values, color = _values(points, first, other), FULL[i % len(FULL)]
        axes.plot(
            *values.T,
            color=color,
            marker=MARKERS[i % len(MARKERS)],
            lw=1.3,
            ms=5,
            label=f"full fine-tuning: steps, at rate {rate_text(rate)}",
            zorder=2,
        )
        labels += [
            annotation(axes, str(point["steps"]), at, color, size=7) for point, at in zip(points, values, strict=True)
        ]
    return labels


def _draw_front(
    axes: Axes, members: Sequence[dict[str, Any]], first: str, other: str, *, connect: bool
) -> list[Annotation]:
    values = _values(members, first, other)
    ends = _with_intervals(members, first, other).reshape(-1, 3, 2)
    errors = np.abs(ends[:, [0, 2]] - values[:, None])  # low and high side of each member
    axes.errorbar(
        values[:, 0],
        values[:, 1],
        xerr=errors[:, :, 0].T,
        yerr=errors[:, :, 1].T,
        color=FRONT,
        ecolor=f"{FRONT}66",
        elinewidth=0.9,
        fmt="o-" if connect else "o",
        lw=2,
        ms=6,
        label="front: trial numbers, 95 % intervals",
        zorder=3,
    )
    return [
        annotation(axes, member_name(member), at, FRONT, size=9, weight="bold")
        for member, at in zip(members, values, strict=True)
    ]


def _draw_confirmed(axes: Axes, front: dict[str, Any], first: str, other: str) -> Floats:
    """Diamonds at confirmed means, a line to each from what the search gave; returns the means, `(N, 2)`."""
    members = [member for member in front["front"] if member["confirmed"]]
    means = _values([member["confirmed"] for member in members], first, other)
    for searched, mean in zip(_values(members, first, other), means, strict=True):
        axes.plot(*np.stack([searched, mean]).T, color=FRONT, lw=0.8, ls=":", zorder=3)
    kinds = [("full", FULL[1], "full fine-tuning"), ("random", RANDOM, "random masks of equal size")]
    groups = [(means, FRONT, "front")]
    for kind, color, name in kinds if members else ():
        rows = [row for row in front["confirmation"]["rows"] if row["kind"] == kind]
        groups.append((_values(rows, first, other), color, name))
    for points, color, name in groups:
        if len(points):
            label = f"{name}, trained again on fresh seeds"
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=34,
                marker="D",
                facecolors="white",
                edgecolors=color,
                label=label,
                zorder=4,
            )
    return np.concatenate([points for points, _, _ in groups])


def _label(axis: Any, name: str, front: dict[str, Any]) -> None:
    better = next(objective["better"] for objective in front["objectives"] if objective["name"] == name)
    axis.set_label_text(f"{name} ({better} is better)")


def _count_hidden(axes: Axes, scattered: Floats) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = scattered.T
    hidden = int(np.sum((x < left) | (x > right) | (y < bottom) | (y > top)))
    if hidden:
        axes.set_title(f"{hidden} trial{'' if hidden == 1 else 's'} outside the picture", loc="right", fontsize=8)


def _mark_untuned(axes: Axes, frozen: dict[str, Any] | None, first: str, other: str) -> list[Annotation]:
    """A star where the untuned model lies, or a label at the edge towards it where that is outside."""
    if frozen is None:
        return []
    (x, y), (left, right), (bottom, top) = _values([frozen], first, other)[0], axes.get_xlim(), axes.get_ylim()
    if left <= x <= right and bottom <= y <= top:
        axes.plot(x, y, marker="*", ms=11, color=UNTUNED, ls="none", label="untuned model", zorder=4)
        return []
    edge = np.clip(np.array([x, y]), [left, bottom], [right, top])
    text = f"untuned model outside: {number_text(x)}, {number_text(y)}"
    label = annotation(axes, text, edge, UNTUNED, size=8)
    label.set_horizontalalignment("left" if x < left else "right")
    axes.plot(*edge, marker="*", ms=11, color=UNTUNED, ls="none", clip_on=False, zorder=4)
    return [label]


def _draw_single(axes: Axes, front: dict[str, Any], trials: Sequence[Mapping[str, str]]) -> None:
    """The one objective against the trials' numbers, with full fine-tuning's best and the untuned model as lines."""
    (objective,) = front["objectives"]
    name = objective["name"]
    done = [row for row in trials if row["state"] == "complete"]
    axes.scatter([int(r["number"]) for r in done], [float(r[name]) for r in done], s=12, color=TRIAL, label="trials")
    for member in front["front"]:
        score = member["scores"][name]
        errors = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        axes.errorbar(member["trial"], score["value"], yerr=errors, color=FRONT, fmt="o", label="best mask")
    values = [point["scores"][name]["value"] for point in trajectory(front)]
    if values:
        best = min(values) if objective["better"] == "lower" else max(values)
        axes.axhline(best, color=FULL[1], label="full fine-tuning's best")
    frozen = untuned(front)
    if frozen is not None:
        axes.axhline(frozen["scores"][name]["value"], color=UNTUNED, ls=":", label="untuned model")
    drawn = [float(row[name]) for row in done] + values
    if drawn and min(drawn) > 0 and max(drawn) / min(drawn) > WIDE:
        axes.set_yscale("log")
    axes.set_xlabel("trial")
    _label(axes.yaxis, name, front)

"""What a search found: the front as a table, in words against full fine-tuning, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from memcontrol.errors import RunError
from memcontrol.report.confirmed import confirmed_sentences
from memcontrol.report.inspection import percent_text
from memcontrol.report.trajectory import Comparison, compare, trajectory, untuned
from memcontrol.report.wording import lit_count, mask_blocks, member_name, number_text, rate_text, short_names
from memcontrol.run import RunFolder, read_object
from memcontrol.study.front import front_positions, minimised_points, picked

SCHEMA = "memcontrol/closing@1"
NO_TRAJECTORY = "No trajectory of full fine-tuning was scored, so no mask can be judged against it."


def trained_percent(folder: RunFolder | None, member: dict[str, Any]) -> float | None:
    """Percentage of the U-Net that a front member trains, from its mask file; None where there is none."""
    path = None if folder is None else folder.path / member["mask"]
    if path is None or not path.is_file():
        return None
    trainable = read_object(path).get("trainable")
    percent = trainable.get("percent") if isinstance(trainable, dict) else None
    if not isinstance(percent, int | float):
        raise RunError(f"{path} does not say what share of the U-Net it trains (trainable.percent): it was changed")
    return float(percent)


def closing_table(front: dict[str, Any], folder: RunFolder | None = None, *, ascii_only: bool = False) -> Table:
    """The front's members, then the untuned model and the best of full fine-tuning.

    Args:
        front: the content of `front.json`.
        folder: where the mask files lie, for percentages of the U-Net.
        ascii_only: whether the terminal shows nothing else.
    """
    objectives = front["objectives"]
    table = Table(title="Pareto front", caption=_caption(front), box=SIMPLE_HEAD)
    for name in ("trial", "trains, at rate", "numbers, % of U-Net", *(objective["name"] for objective in objectives)):
        head = name.replace("@", "@\n").replace(", ", ",\n")
        table.add_column(head, justify="left" if name.startswith("tr") else "right", overflow="fold")
    for member in front["front"]:
        percent = trained_percent(folder, member)
        numbers = f"{member['numel']:,}" + ("" if percent is None else f"\n{percent_text(percent)} %")
        trains = f"{mask_blocks(member['bits'], ascii_only=ascii_only)}\n{rate_text(member['learning_rate'])}"
        table.add_row(member_name(member), trains, numbers, *(_cell(member, objective) for objective in objectives))
    table.add_section()
    for point in _references(front):
        if point["learning_rate"] is None:
            name, trains, numbers = "untuned", "", "0\n0 %"
        else:
            name, trains = "full", f"{point['steps']:,} steps\n{rate_text(point['learning_rate'])}"
            numbers = "all\n100 %"
        table.add_row(name, trains, numbers, *(_cell(point, objective) for objective in objectives))
    return table


def _references(front: dict[str, Any]) -> list[dict[str, Any]]:
    """The untuned model, then the two ends and the knee of full fine-tuning's own Pareto points."""
    scored, frozen = trajectory(front), untuned(front)
    points = minimised_points(scored, front["objectives"])
    kept = front_positions(points)
    best = sorted({0, *picked(points[kept], "knee"), len(kept) - 1}) if kept else []
    return ([] if frozen is None else [frozen]) + [scored[kept[i]] for i in best]


def _cell(scored: dict[str, Any], objective: dict[str, str]) -> str:
    score = scored["scores"][objective["name"]]
    p = f" p {score['p']:.2g}" if "p" in score else ""
    return f"{number_text(score['value'])}{p}\n{number_text(score['low'])} to {number_text(score['high'])}"


def _caption(front: dict[str, Any]) -> str:
    better = ", ".join(f"{objective['name']} {objective['better']}" for objective in front["objectives"])
    parts = [f"better: {better}", "second lines: 95 % intervals"]
    if any(
        "p" in member["scores"][objective["name"]] for member in front["front"] for objective in front["objectives"]
    ):
        parts.append("p: share of shuffled memberships that look as copied")
    if trajectory(front):
        parts.append("full: the ends and the knee of full fine-tuning's trajectory")
    return "; ".join(parts)


def closing_sentences(front: dict[str, Any], folder: RunFolder | None = None) -> list[str]:
    """What each front member trains, and what it costs and buys against full fine-tuning at equal fidelity."""
    sentences = [member_sentence(front, member, folder) for member in front["front"]]
    return sentences if trajectory(front) or not sentences else [*sentences, NO_TRAJECTORY]


def member_sentence(front: dict[str, Any], member: dict[str, Any], folder: RunFolder | None = None) -> str:
    """One front member in words."""
    percent = trained_percent(folder, member)
    share = "" if percent is None else f" ({percent_text(percent)} % of the U-Net)"
    lit, rate = lit_count(member["bits"]), member["learning_rate"]
    at = "" if rate is None else f" at learning rate {rate_text(rate)}"
    trains = f"trains {member['numel']:,} numbers{share} in {lit} of {len(member['bits'])} groups{at}"
    stopped = f" of a schedule of {member['of']:,}" if "of" in member else ""
    head = f"Trial {member_name(member)}{stopped} {'trains nothing' if rate is None else trains}."
    compared = compare(front, member)
    names = short_names([objective["name"] for objective in front["objectives"]])
    # Where the mask got further than full fine-tuning, the sentence about that says what its best is.
    first = [] if any(c.case == "beyond" for c in compared) else compared[:1]
    return " ".join([head, *(_words(c, member, names, front) for c in first + compared[1:])])


def _words(compared: Comparison, member: dict[str, Any], names: dict[str, str], front: dict[str, Any]) -> str:
    first, other = names[front["objectives"][0]["name"]], names[compared.objective]
    at, full = number_text(compared.first), number_text(compared.full)
    own = f"this mask's is {number_text(member['scores'][compared.objective]['value'])}: {_difference(compared)}"
    if compared.case == "best":
        return _cost(compared, first)
    if compared.case == "beyond":
        return f"Full fine-tuning never got this far: its best {first} is {at}, where its {other} is {full}; {own}."
    if compared.case == "short":
        ahead = ", so full fine-tuning is ahead in both" if compared.verdict == "worse" else ", not at equal " + first
        return f"Full fine-tuning's best {other} is {full}, at a better {first} of {at}; {own}{ahead}."
    between = " (interpolated)" if compared.interpolated else ""
    return f"At {first} {at} full fine-tuning's {other} is {full}{between}; {own}."


def _cost(compared: Comparison, first: str) -> str:
    best, amount = f"full fine-tuning's best {first}, {number_text(compared.full)}", abs(compared.difference)
    if compared.verdict == "within noise":
        return f"Its {first} is within noise of {best}."
    verb, preposition = ("gains", "on") if compared.verdict == "better" else ("costs", "against")
    return f"It {verb} {number_text(amount)} of {first} {preposition} {best}."


def _difference(compared: Comparison) -> str:
    if compared.difference == 0:
        return "no difference"
    amount = f"{number_text(abs(compared.difference))} {'less' if compared.difference < 0 else 'more'}"
    return f"{amount}, {compared.verdict}"


def closing_json(front: dict[str, Any], folder: RunFolder | None = None) -> dict[str, Any]:
    """The same as plain values; `against_full` holds the comparisons that the sentences put in words."""
    names = [objective["name"] for objective in front["objectives"]]
    kept = ("trial", "mask", "bits", "trains", "numel", "learning_rate", "steps", "confirmed")
    marks = ("dominated_after_confirmation", "dominated_by")  # a front written before there was confirmation lacks them
    members = [
        {key: member[key] for key in kept}
        | {key: member.get(key) for key in marks}
        | {
            "percent": trained_percent(folder, member),
            "scores": {name: member["scores"][name] for name in names},
            "against_full": [asdict(compared) for compared in compare(front, member)],
            "summary": member_sentence(front, member, folder),
        }
        for member in front["front"]
    ]
    references = [
        {key: point[key] for key in ("learning_rate", "steps")} | {"scores": {n: point["scores"][n] for n in names}}
        for point in _references(front)
    ]
    copied = {key: front[key] for key in ("objectives", "budget", "trials", "hypervolume", "reference_point")}
    confirmation = {"confirmation": front.get("confirmation"), "confirmed_summary": confirmed_sentences(front)}
    return {"schema": SCHEMA, **copied, "front": members, "references": references, **confirmation}

"""What a transfer found, in sentences: against random masks, full fine-tuning, and the target's own mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memcontrol.report.comparison_table import difference_text
from memcontrol.report.wording import short_names

LEVEL = 0.05
BETTER, WORSE, OPEN, ALONE = "better", "worse", "no difference shown", "one seed shows no difference"


def verdict(difference: Mapping[str, Any], better: str) -> str:
    """What a paired difference says: its interval is on one side of zero, or it is not."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return ALONE
    if low <= 0 <= high:
        return OPEN
    return BETTER if (high < 0) == (better == "lower") else WORSE


def p_text(p: float) -> str:
    """A p-value to two digits, as papers write it."""
    return f"{p:.2g}".removeprefix("0")


def directions(document: Mapping[str, Any]) -> dict[str, str]:
    """Score -> `lower` or `higher`."""
    return {score["name"]: score["better"] for score in document["scores"]}


def transfer_sentences(document: Mapping[str, Any]) -> list[str]:
    """Sentences on every mask, plainly: what it beats, what it does not, and what stays open.

    Args:
        document: the content of `transfer.json`.
    """
    return [
        sentence
        for mask in document["masks"]
        for sentence in (
            *_against_random(document, mask),
            *_equal_fidelity(document, mask),
            *(_against(document, mask, what) for what, minus in mask["minus"].items() if minus and what != "untuned"),
            *_unlearned(document, mask),
        )
    ]


def _against_random(document: Mapping[str, Any], mask: Mapping[str, Any]) -> list[str]:
    short = short_names(document["objectives"])
    ranks = {name: mask["random"][name] for name in document["objectives"] if mask["random"][name]}
    if not ranks:
        return []
    count = min(rank["twins"] for rank in ranks.values())
    each = [f"{short[n]} rank {r['rank']} of {1 + r['twins']}, p = {p_text(r['p'])}" for n, r in ranks.items()]
    beaten = [short[name] for name, rank in ranks.items() if rank["p"] <= LEVEL]
    ahead = mask["ahead_in_all"]
    both = (
        ""
        if ahead is None or len(ranks) < 2
        else f" {ahead} of {count} are at least as good in all of these scores at once."
    )
    return [
        f"{mask['name']} against {count} random masks of its size: {'; '.join(each)}. "
        + (f"It beats them in {' and '.join(beaten)}." if beaten else "It does not beat them.")
        + both
    ]


def _equal_fidelity(document: Mapping[str, Any], mask: Mapping[str, Any]) -> list[str]:
    better = directions(document)
    short, said = short_names(document["objectives"]), []
    for name, found in mask["equal_fidelity"].items():
        if found is None:
            continue
        first, rows = short[found["fidelity"]], [f'"{row}"' for row in found["shares"]]
        where = f"between {' and '.join(rows)}" if len(rows) > 1 else f"at {rows[0]}"
        place = {
            "equal": f"where full fine-tuning is as good in {first} ({where})",
            "beyond": f"beside {rows[0]}, since no full fine-tuning is as good in {first}",
            "short": f"beside {rows[0]}, the nearest full fine-tuning, which is better in {first}",
        }[found["case"]]
        told = verdict(found["difference"], better[name])
        caution = ""
        if found["case"] == "short" and told == BETTER:
            caution = " That may mean only that the mask is trained less."
        minus = difference_text(found["difference"]).removesuffix(" *")
        said.append(f"{mask['name']} {place}: {short[name]} {minus} against it, {told}.{caution}")
    return said


def _against(document: Mapping[str, Any], mask: Mapping[str, Any], what: str) -> str:
    """The mask minus one reference, in each objective."""
    named = {
        "full": f"full fine-tuning of {document['steps']} steps",
        "all groups": "all groups of its space at its rate",
    }
    better, minus = directions(document), mask["minus"][what]
    short = short_names(document["objectives"])
    each = [
        f"{short[name]} {difference_text(minus[name]).removesuffix(' *')}, {verdict(minus[name], better[name])}"
        for name in document["objectives"]
        if name in minus
    ]
    reference = named.get(what, f"the mask that was found on the target, {what}")
    return f"{mask['name']} against {reference}: {'; '.join(each)}."


def _unlearned(document: Mapping[str, Any], mask: Mapping[str, Any]) -> list[str]:
    """A mask that is no better than the untuned model learned nothing, so that its copying says nothing."""
    first = document["objectives"][0]
    minus = mask["minus"]["untuned"].get(first)
    if minus is None or minus["low"] is None or verdict(minus, directions(document)[first]) == BETTER:
        return []
    return [
        f"{mask['name']} is not shown to be better than the untuned model in {short_names([first])[first]}: "
        "how little it copies says nothing of what it would copy once it has learned."
    ]


def joined(sentences: Sequence[str]) -> str:
    """Sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)

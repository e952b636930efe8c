"""The sentences of a search's page: what was measured, what was not, how far its numbers reach, and its commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memcontrol.measures import FIDELITY, MEASURES, Family
from memcontrol.report.run_reading import RunReading
from memcontrol.report.wording import number_text

FAMILIES: Mapping[Family, str] = {
    "membership": "membership attacks: whether the model itself tells who was in the training set",
    "extraction": "extraction: whether repeated generation from training captions gives training images back",
    "noise": "text-conditional noise magnitude: captions that steer the model unusually strongly",
    "alignment": "agreement of images with their captions",
    "manifold": "precision, recall, density and coverage",
    "full": "Fréchet distance on all components, FID included",
}
"""What a reader may miss, by family of measures."""

LIMITS = (
    "Intervals are 95 %. A search's cover which images happened to be drawn, not training again with another seed; "
    "confirmed ones (Student, over seeds) cover that.",
    "The best of many noisy scores look better than they are: believe confirmed scores before the search's.",
    "A mask that learned less also copies less. Compare it with full fine-tuning's trajectory at equal fidelity, and "
    "with random masks of its size; the untuned model's copying says nothing, since it has seen none of the images.",
    "Fréchet distances are biased upward at small n and depend on the number of components: compare at equal n only.",
    "A distance sees only what its encoder sees: a short one is a reason to look at the images, a long one is not "
    "evidence of absence. Distances cannot exclude membership inference (arXiv 2505.01524).",
    "Held-out images and training images are one draw; masks were chosen on it, and another draw moves every number.",
)


def missing_families(names: Sequence[str]) -> list[str]:
    """The families of measures that none of these scores is of, in words."""
    measures = [name.partition("@")[0] for name in names]
    families = {MEASURES[measure].family for measure in measures if measure in MEASURES}
    return [words for family, words in FAMILIES.items() if family not in families]


def not_measured(run: RunReading) -> list[str]:
    """What this search did not measure, in words."""
    left = missing_families(run.score_names)
    counts = [f"{state}: {count}" for state, count in run.front["trials"].items() if state != "complete"]
    if counts:
        left.append(f"trials that did not complete have no scores ({', '.join(counts)})")
    if not run.front["confirmation"]:
        left.append("confirmation: no mask was trained again on fresh seeds")
    elif unconfirmed := sum(1 for member in run.front["front"] if member["learning_rate"] and not member["confirmed"]):
        left.append(f"confirmation of {unconfirmed} of the {len(run.front['front'])} masks on the front")
    return left


def commands(run: RunReading) -> list[tuple[str, str]]:
    """Commands that repeat the run and go on from it, each with what it does."""
    path, again = shlex.quote(str(run.folder.path)), shlex.quote(f"{run.folder.path}-again")
    config = shlex.quote(str(Path(run.folder.path) / "config.yaml"))
    found = [(f"memcontrol search --config {config} --out {again}", "repeats the search")]
    confirmation = run.front["confirmation"]
    if confirmation:
        seeds = ",".join(map(str, confirmation["seeds"]))
        found.append((f"memcontrol confirm {again} --seeds {seeds}", "trains its front again, on the same fresh seeds"))
    return [
        *found,
        (f"memcontrol export {path} --pick knee --out masks", "takes the mask at the front's knee out of this run"),
        (f"memcontrol report {path}", "writes this page again"),
    ]


def hypervolume_words(run: RunReading) -> str:
    """What the hypervolume is, and measured from where; empty where it was not computed."""
    worst, found = run.front.get("reference_point"), run.front.get("hypervolume")
    if worst is None or found is None:
        return ""
    corner = ", ".join(
        f"{name} {number_text(value if run.better[name] == 'lower' else -value)}"
        for name, value in zip(run.objectives, worst, strict=True)
    )
    return (
        f"The front dominates a hypervolume of {number_text(found)} (product of the objectives' units), measured from "
        f"the worst of the references ({corner}). It only grows; a curve that is still rising asks for more trials."
    )


def facts_of(run: RunReading) -> dict[str, Any]:
    """What was searched, on what, and how: labelled values for `facts`."""
    settings, mask = run.settings, run.first_mask() or {}
    data, tuning, sampling = (settings.get(key, {}) for key in ("data", "tuning", "sampling"))
    provenance = mask.get("provenance", {})
    found = provenance.get("data", {})
    groups = mask.get("groups", [])
    held_out = [f"{data[key]} for {key}" for key in ("fidelity", "copying", "confirmation") if data.get(key)]
    return {
        "data": found.get("name", data.get("source")),
        "training images": found.get("n", data.get("train_size")),
        "held-out images": "at most " + ", ".join(held_out) if held_out else None,
        "model": mask.get("model", {}).get("id", settings.get("model")),
        "search space": _space(settings, mask, len(groups)),
        "each trial": _trial_words(tuning, sampling, provenance),
        "mitigations": settings.get("mitigations"),
        "trials": ", ".join(f"{count} {state}" for state, count in run.front["trials"].items())
        + f", of a budget of {run.front['budget']}",
        "sampler": run.front["sampler"],
        "seed": run.front["seed"],
        "data's SHA-256": found.get("sha256"),
        "weights": mask.get("model", {}).get("weights"),
        "versions": [f"{name} {version}" for name, version in provenance.get("versions", {}).items()],
    }


def _space(settings: Mapping[str, Any], mask: Mapping[str, Any], groups: int) -> str:
    name = mask.get("space", {}).get("name", settings.get("space", "unknown"))
    return f"{name}, {groups} groups" if groups else str(name)


def _trial_words(tuning: Mapping[str, Any], sampling: Mapping[str, Any], provenance: Mapping[str, Any]) -> str | None:
    steps = provenance.get("steps", tuning.get("steps"))
    parts = [f"{steps:,} optimizer steps"] if steps else []
    parts += [f"batch {tuning['batch']}"] if tuning.get("batch") else []
    parts += [f"{sampling['images']:,} images sampled"] if sampling.get("images") else []
    return ", ".join(parts) or None


def kind_words(name: str) -> str:
    """Whether a score is of fidelity, of memorization, or other."""
    measure = MEASURES.get(name.partition("@")[0])
    if measure is None:
        return "the user's own"
    if measure.family in FIDELITY:
        return "fidelity"
    return "alignment" if measure.family == "alignment" else "memorization"


def pinned_first(keys: Sequence[str]) -> list[str]:
    """What stands side by side before a reader chooses: the two ends of the front."""
    return list(dict.fromkeys([keys[0], keys[-1]])) if keys else []

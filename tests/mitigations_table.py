"""The table of docs/mitigations.md; `python tests/mitigations_table.py` writes it anew."""

from __future__ import annotations

import inspect
from pathlib import Path

from generated_part import GeneratedPart

from memcontrol.mitigations.naming import MITIGATIONS, load_mitigation, strengths

PAGE = Path(__file__).parents[1] / "docs" / "mitigations.md"
PART = GeneratedPart(PAGE, "tests/mitigations_table.py")
DCR = "Somepalli et al. 2023, arXiv 2305.20086"
WEN = "Wen et al. 2024, arXiv 2407.21720"
LIU = "Liu et al. 2024, arXiv 2407.15328"
ABOUT = {
    "rwa": (
        "data",
        "Random words at random places of every caption.",
        "Dutt et al. 2024, arXiv 2405.19458, as in their code",
    ),
    "rt": ("data", "The same in one caption of ten.", f"{DCR}, as in their code"),
    "random-numbers": ("data", "Random whole numbers, 0 to `below`, at random places of a caption.", DCR),
    "repeated-words": ("data", "Some of a caption's own words again, at random places.", DCR),
    "other-caption": ("data", "Another training caption in place of an image's own.", DCR),
    "embedding-noise": ("data", "Gaussian noise on the captions' embeddings.", DCR),
    "deduplication": (
        "data",
        "Each image once: repeats, exact duplicates, and images at a cosine distance of low-passed pixels below "
        "`threshold`.",
        "Lee et al. 2022, arXiv 2107.06499; Carlini et al. 2023, arXiv 2301.13188",
    ),
    "threshold": (
        "loss",
        "Samples whose caption moves the predicted noise by `bound` or more do not count; by default the highest "
        "`share` of the latest `remembered` do not.",
        f"{WEN}; the share as in the code of Dutt et al. 2024, arXiv 2405.19458",
    ),
    "agc": (
        "loss",
        "Anti-gradient control alone: samples whose loss, times `m`, is below the running mean loss of their timestep "
        "do not count. `width` neighbouring timesteps share a mean; 1 is as published, and skips next to nothing in a "
        "few hundred steps (experiments/iet_agc).",
        LIU,
    ),
    "iet": (
        "ensemble",
        "Iterative ensemble training alone: shards of the training set train apart, and what they trained is averaged "
        "after each round.",
        LIU,
    ),
    "iet-agc": ("loss and ensemble", "Both at once.", LIU),
    "iet-agc-plus": (
        "data, loss and ensemble",
        "Besides, each shard gives the share `moved` of its images, those most often skipped, to the next, and samples "
        "that were nearly skipped are learnt from in altered form, in steps that count among those asked for.",
        "Guan et al. 2025, arXiv 2502.09434",
    ),
    "inference-noise": ("inference", "Gaussian noise on the embedding of each prompt.", DCR),
    "inference-optimisation": (
        "inference",
        "Embeddings optimised, image by image, until their prompt moves the predicted noise by at most `bound`; by "
        "default that `quantile` of held-out captions.",
        WEN,
    ),
    "early-stopping": (
        "training",
        "Stop after `patience` checks without a lower loss on held-out images, and keep the tensors of the lowest.",
        "Prechelt 1998; Bonnaire et al. 2025, arXiv 2505.17638",
    ),
    "fewer-steps": (
        "training",
        "A `share` of the steps, with the whole schedule in it: the baseline that every other one has to beat.",
        "none",
    ),
    "weight-decay": (
        "training",
        "Weight decay towards the base weights instead of towards zero.",
        "Li et al. 2018, arXiv 1802.01483; Loshchilov and Hutter 2019, arXiv 1711.05101",
    ),
    "dp-sgd": (
        "training",
        "Each sample's gradient clipped to the norm `clip`, and noise on their sum; the extra `dp`.",
        "Abadi et al. 2016, arXiv 1607.00133; Ghalebikesabi et al. 2023, arXiv 2302.13861",
    ),
}
"""Mitigation -> its place, what it does, and its source; in the order of the page."""


def table() -> str:
    """Every mitigation with its place, strengths and defaults, and source."""
    rows = (
        f"| `{name}` | {place} | {given(name)} | {words} | {source} |" for name, (place, words, source) in ABOUT.items()
    )
    return "\n".join(["| name | place | strengths | what it does | source |", "|---|---|---|---|---|", *rows])


def given(name: str) -> str:
    """The strengths of a mitigation with their defaults, as the command line takes them."""
    made, signature = load_mitigation(name), inspect.signature(MITIGATIONS[name])
    values = {
        key: getattr(made, key) if hasattr(made, key) else signature.parameters[key].default for key in strengths(name)
    }
    return ", ".join(f"`{key}={'none' if value is None else value}`" for key, value in values.items())


if __name__ == "__main__":
    PART.write(table())

"""How rows are trained and scored again: fresh seeds, the run's training set, other held-out images and encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memcontrol.config import RunConfig
from memcontrol.data.images import Dataset
from memcontrol.errors import MemControlError
from memcontrol.measures import FIDELITY, MEASURES
from memcontrol.score import from_model, parse_name
from memcontrol.score.naming import shortage

FIRST_SEED = 101
AVAILABLE = ("efficientnet-lite0", "latents", "pixels")
"""Encoders that need no weights from the user, the one that says most about content first."""


@dataclass(frozen=True)
class Fresh:
    """The settings of each fresh seed.

    Attributes:
        config: of the run.
        seeds: of training and of sampling; the training set stays the run's.
        measures: scored besides the run's objectives.
        held_out: the held-out images that scores compare with.
    """

    config: RunConfig
    seeds: tuple[int, ...]
    measures: tuple[str, ...]
    held_out: Literal["search", "confirmation"] = "confirmation"

    def run(self, seed: int) -> RunConfig:
        """The settings of one seed; masks bring their groups and rates, and rows their mitigations."""
        config = self.config
        scoring = {"reported": self.measures, "held_out": self.held_out}
        return config.model_copy(
            update={
                "seed": seed,
                "space": "full-tuning",
                "learning_rate": None,
                "mitigations": (),
                "data": config.data.model_copy(update={"seed": data_seed(config)}),
                "scoring": config.scoring.model_copy(update=scoring),
            }
        )


def data_seed(config: RunConfig) -> int:
    """The seed of the draw of a run's sets."""
    return config.seed if config.data.seed is None else config.data.seed


def fresh_seeds(count: int, config: RunConfig) -> tuple[int, ...]:
    """So many seeds from 101 on, but for the run's own."""
    used = {config.seed, data_seed(config)}
    return tuple(seed for seed in range(FIRST_SEED, FIRST_SEED + count + 2) if seed not in used)[:count]


def check_fresh(seeds: Sequence[int], config: RunConfig) -> None:
    """Refuse seeds that are not fresh.

    Raises:
        MemControlError: the run's own seed, one twice, or none at all.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise MemControlError(f"seeds {', '.join(map(str, seeds)) or 'none'}: expected one or more, each once")
    if config.seed in seeds:
        raise MemControlError(f"seed {config.seed} is the search's own: confirm with seeds that it did not use")


def other_measures(config: RunConfig, *, has_autoencoder: bool) -> tuple[str, ...]:
    """Each objective that images alone decide, on an encoder that no objective uses, or that this one does not use.

    Encoders whose weights the user gave come first, since they were brought for these images.
    """
    named = [parse_name(name) for name in config.scoring.objectives if ":" not in name and not from_model(name)]
    used = {encoder for _, encoder in named}
    known = dict.fromkeys([*config.scoring.encoder_weights, *AVAILABLE])
    possible = [name for name in known if name != "latents" or has_autoencoder]
    found = list[str]()
    for measure, encoder in named:
        free = MEASURES[measure].sources is None and MEASURES[measure].family in FIDELITY | {"copying"}
        others = [name for name in possible if name not in used] or [name for name in possible if name != encoder]
        if free and others:
            found.append(f"{measure}@{others[0]}")
    return tuple(name for name in dict.fromkeys(found) if name not in config.scoring.objectives)


def judged_on(fresh: Fresh, dataset: Dataset) -> tuple[Fresh, tuple[str, ...]]:
    """The same settings, and a sentence where the third held-out set is too small and the search's sets are used.

    Scores with fresh seeds on the search's sets are still rid of the luck that made the best of many the best, which is
    most of it, and are recorded as what they are.
    """
    names, count = (*fresh.config.scoring.objectives, *fresh.measures), len(dataset.heldout.confirmation)
    for name in names:
        short = shortage(name, fresh.config.scoring.components, generated=fresh.config.sampling.images, reference=count)
        if short is not None and not short.generated:
            note = (
                f"the third held-out set has {count} images, too few for {name}: scored on the search's held-out sets"
            )
            return Fresh(fresh.config, fresh.seeds, fresh.measures, "search"), (note,)
    return fresh, ()

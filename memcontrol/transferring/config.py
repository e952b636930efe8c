"""One validated object per transfer, in and out of YAML: which masks, onto which data and model, against what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from memcontrol.comparison.config import RowsConfig, read_settings
from memcontrol.comparison.methods import FULL
from memcontrol.config import DataConfig, Rate

ENOUGH = 19
"""Random masks from which the first rank means p <= .05."""


def _paths(paths: object) -> object:
    """One path, or several."""
    return [paths] if isinstance(paths, str) else paths


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths, json_schema_input_type=str | tuple[str, ...])]


class TransferConfig(RowsConfig):
    """Everything that decides a transfer's scores.

    Attributes:
        data: the target.
        model: the target; where its U-Net is another than the masks', they are carried over.
        masks: JSON files, folders with a `mask.json`, or run folders of searches, whose front's `pick` is taken.
        target_masks: the same, of masks that a search on the target found.
        pick: `knee`, `best-fidelity`, `least-copied` or `all`.
        map: how masks are carried to another U-Net, by the groups' names or by their relative positions.
        random: random masks of its size that each mask is ranked among; 0 for none.
        random_seed: of their draw.
        full_points: for which shares of `tuning.steps` full fine-tuning is trained, besides 1.
        full_rates: its learning rates besides the usual one.
        rates: of `full`, where it is not the usual one.
    """

    data: DataConfig = DataConfig(source="faces")
    masks: Paths = ()
    target_masks: Paths = ()
    pick: Literal["knee", "best-fidelity", "least-copied", "all"] = "knee"
    map: Literal["name", "position"] = "name"
    random: Annotated[int, Field(ge=0)] = ENOUGH
    random_seed: Annotated[int, Field(ge=0)] = 0
    full_points: tuple[Rate, ...] = (0.25, 0.5, 1.0, 2.0)
    full_rates: tuple[Rate, ...] = ()

    @model_validator(mode="after")
    def _masks_bring_rates(self) -> Self:
        other = sorted(self.rates.keys() - {FULL})
        if other:
            raise ValueError(f"a learning rate of {other[0]!r}: expected full=RATE alone, since masks bring their own")
        return self


def load_transfer(path: Path) -> TransferConfig:
    """A `TransferConfig` from YAML; keys left out take their defaults, and masks are found beside the file.

    Raises:
        MemControlError: no such file, not YAML, or a key or value that is not allowed (named in the message).
    """
    config = read_settings(path, TransferConfig)
    beside = {
        key: tuple(str(path.parent / mask) for mask in masks)
        for key, masks in (("masks", config.masks), ("target_masks", config.target_masks))
    }
    return config.model_copy(update=beside)

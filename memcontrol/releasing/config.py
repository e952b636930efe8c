"""One validated object per full-length training, in and out of YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from memcontrol.config import (
    DataConfig,
    Rate,
    SamplingConfig,
    ScoringConfig,
    Settings,
    TuningConfig,
    first_problem,
)
from memcontrol.data import SOURCES
from memcontrol.errors import MaskError
from memcontrol.mask import Mask
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.pipeline import SHIPPED

Kind = TypeVar("Kind", bound=Settings)

CHECKPOINTS = 10
"""So many are written over a training, unless it is said how often."""
WORTH_KEEPING = 100
"""Optimizer steps below which none is written, unless it is said how often."""


class FinetuneConfig(Settings):
    """Everything that decides a full-length training, and what is kept of it.

    Attributes:
        data: what is tuned on; its source is the mask's own unless given, where that is `brain`, `faces` or `digits`.
        model: pipeline to tune; the mask's own unless given.
        learning_rate: its peak; the mask's own unless given.
        mitigations: those that the mask was found under unless given.
        seed: of the training set's draw, of training and of sampling.
        tuning: what is given here differs from the settings that the mask was scored under.
        monitor: what is looked at during training.
        sampling: how the monitor's images are generated, apart from how many; what is given here differs from the
            settings that the mask was scored under.
        scoring: how its scores are measured, likewise; which ones is said by `monitor`.
        checkpoint_every: optimizer steps between checkpoints; 0 for none. Unless given, a tenth of the steps, and none
            of fewer than a hundred.
        save: the whole pipeline, the tuned tensors alone, or both.
        tracker: where losses and scores are logged through accelerate, besides `losses.csv`.
    """

    data: DataConfig = DataConfig()
    model: str | None = None
    learning_rate: Annotated[Rate, Field(allow_inf_nan=False)] | None = None
    mitigations: tuple[str, ...] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    tuning: TuningConfig = TuningConfig()
    monitor: MonitorConfig = MonitorConfig()
    sampling: SamplingConfig = SamplingConfig()
    scoring: ScoringConfig = ScoringConfig()
    checkpoint_every: Annotated[int, Field(ge=0)] | None = None
    save: Literal["pipeline", "tuned", "both"] = "both"
    tracker: Literal["tensorboard", "wandb"] | None = None

    def resolved(self, mask: Mask) -> FinetuneConfig:
        """This configuration with all that it leaves to the mask.

        Raises:
            MaskError: the mask does not say where its data or its model are, or its settings are not of this program.
        """
        known = _settings(mask)
        return self.model_copy(
            update={
                "data": self._data(mask),
                "model": self.model or _model(mask),
                "learning_rate": self.learning_rate or mask.learning_rate,
                "mitigations": mask_mitigations(mask) if self.mitigations is None else self.mitigations,
                "tuning": self._tuning(mask),
                "sampling": _changed(_read(SamplingConfig, known.get("sampling", {}), mask), self.sampling),
                "scoring": _changed(_read(ScoringConfig, known.get("scoring", {}), mask), self.scoring),
            }
        )

    def _data(self, mask: Mask) -> DataConfig:
        """The source that is given, else the mask's own where its name is enough to find it."""
        found = mask.provenance.get("data")
        name = found.get("name") if isinstance(found, Mapping) else None
        if name is None or name == self.data.source or "source" in self.data.model_fields_set:
            return self.data
        if name not in SOURCES:
            raise MaskError(
                f"mask {mask.name} was found on {name}, and does not say where these images are: name them with --data "
                "(from Python, data=), with the other data options of its search"
            )
        return self.data.model_copy(update={"source": name})

    def _tuning(self, mask: Mask) -> TuningConfig:
        """The mask's settings with those that are given here; with other steps a checkpoint's stop is none of them."""
        tuning, given = _changed(mask_tuning(mask), self.tuning), self.tuning.model_fields_set
        return tuning.model_copy(update={"stop": None}) if "steps" in given and "stop" not in given else tuning

    @property
    def checkpoint_steps(self) -> int:
        """Optimizer steps between checkpoints; 0 for none."""
        steps = self.tuning.stop or self.tuning.steps
        if self.checkpoint_every is None:
            return steps // CHECKPOINTS if steps >= WORTH_KEEPING else 0
        return self.checkpoint_every

    @property
    def decisive(self) -> dict[str, Any]:
        """What must stay the same for a training to go on from its checkpoints, as plain values."""
        return self.model_dump(mode="json", exclude={"checkpoint_every", "save", "tracker"})

    def to_yaml(self) -> str:
        """This configuration as YAML that can be read back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def all_given(tuning: TuningConfig) -> TuningConfig:
    """The same settings, of which none is left to a mask."""
    return TuningConfig.model_validate({name: getattr(tuning, name) for name in TuningConfig.model_fields})


def mask_mitigations(mask: Mask) -> tuple[str, ...]:
    """The mitigations that a mask was found under, as text; none where it does not say."""
    return tuple(map(str, _settings(mask).get("mitigations", ())))


def mask_tuning(mask: Mask) -> TuningConfig:
    """The inner loop's settings that a mask was scored under; defaults where it does not say."""
    known = _settings(mask).get("tuning", {})
    steps = {"steps": mask.provenance.get("steps", TuningConfig().steps)}
    return _read(TuningConfig, {**steps, **known} if isinstance(known, Mapping) else known, mask)


def _settings(mask: Mask) -> Mapping[str, Any]:
    found: Mapping[str, Any] = mask.provenance.get("settings", {})
    return found


def _model(mask: Mask) -> str:
    """Where a mask says that its model is; a published one gives only the name of what was a folder."""
    model = mask.model.id
    if model not in SHIPPED and "/" not in model and not Path(model).is_dir():
        raise MaskError(
            f"mask {mask.name} gives only the name of its model, {model!r}, which is none of {', '.join(SHIPPED)}: "
            "give that model's folder with --model (from Python, model=)"
        )
    return model


def _changed(known: Kind, given: Kind) -> Kind:
    """Settings with all that was given in their place."""
    return known.model_copy(update={name: getattr(given, name) for name in given.model_fields_set})


def _read(kind: type[Kind], content: object, mask: Mask) -> Kind:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        key, wrong, _ = first_problem(error)
        said = f"{key}: {wrong}" if key else wrong
        raise MaskError(f"mask {mask.name}: its provenance.settings are no {kind.__name__} ({said})") from error

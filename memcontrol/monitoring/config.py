"""When a full-length training is looked at, by which scores, and when that ends it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from memcontrol.config import Names, Positive, Settings
from memcontrol.measures import COPYING_NAMES, PRESETS


class MonitorConfig(Settings):
    """What is looked at while a full-length training goes on, and when that ends it.

    Attributes:
        every: optimizer steps between looks; None never looks.
        images: images generated at each look, always of the same prompts and noise.
        measures: scores of these images, each named as in `ScoringConfig.objectives`.
        grid: how many of the images each look's picture shows, the same ones every time.
        stop_copy_gap: stop once the lower end of the interval of `copy_gap` exceeds this.
        stop_above_null: stop once `copy_gap` is above its null band, that is once copying is measured at all. With few
            training images that is soon, long before the images are good.
        patience: looks in a row at which that must be so. Of models that copy nothing a look finds one in forty above
            the null band, and since looks share their data, prompts and noise, more patience makes that hardly rarer:
            it passes over what is soon gone.
    """

    every: Positive | None = None
    images: Positive = 64
    measures: Annotated[Names, Field(min_length=1)] = PRESETS["default"]
    grid: Positive = 16
    stop_copy_gap: Annotated[float, Field(allow_inf_nan=False)] | None = None
    stop_above_null: bool = False
    patience: Positive = 2

    def due(self, step: int) -> bool:
        """Whether a look is due after so many steps; before the first step one is, too."""
        return self.every is not None and step % self.every == 0

    @property
    def stops(self) -> bool:
        """Whether a look may end the training."""
        return self.stop_copy_gap is not None or self.stop_above_null

    @property
    def copy_gap(self) -> str | None:
        """The score that stopping goes by: the first `copy_gap` of the measures, with any ending."""
        names = (name for name in self.measures if name.partition("@")[0] in COPYING_NAMES)
        return next((name for name in names if COPYING_NAMES[name.partition("@")[0]][0] == "copy_gap"), None)

    @model_validator(mode="after")
    def _can_stop(self) -> Self:
        if self.stops and self.every is None:
            raise ValueError("stopping early needs looks: set monitor.every (--monitor-every)")
        if self.stops and self.copy_gap is None:
            raise ValueError(f"stopping early needs copy_gap among monitor.measures, got {', '.join(self.measures)}")
        return self

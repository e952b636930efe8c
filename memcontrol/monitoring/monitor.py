"""Sample grids and scores of a model in training, which training itself never notices."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memcontrol.config import SamplingConfig, ScoringConfig
from memcontrol.data.images import Dataset, Pixels
from memcontrol.errors import DataError, ModelError, RunError, reason
from memcontrol.measures import MEASURES
from memcontrol.monitoring.config import MonitorConfig
from memcontrol.monitoring.look import Look, columns, judged
from memcontrol.monitoring.sheet import Sheet
from memcontrol.pipeline import FrozenPipeline, LatentPipeline
from memcontrol.run import RunFolder
from memcontrol.sampling import AtInference, drawn_prompts, sample
from memcontrol.score import Attacker, check_scoring, finite, parse_name, real_images, scorer_of
from memcontrol.study.pictures import copying_encoder

TABLE = "monitor.csv"
"""File of the looks, in the monitor's folder."""
NEEDED = {"training": 2, "fidelity": 1, "copying": 1}
"""Images that a look needs in each part of a data set."""


class Monitor:
    """Looks at a model while it is tuned; what is tuned, and every random number of the training, stay as they were.

    Each look generates images of the same prompts and noise, so that its picture and scores compare with those of
    other looks. They are `images` images only, so that Fréchet distances are larger than on more of them. Of several
    processes one alone looks, and the others wait.

    Args:
        frozen: the pipeline whose U-Net is tuned.
        dataset: all that training may draw from; images are compared with all of its training set.
        folder: where `monitor.csv` and `samples/step-000300.png` are written; made at the first look.
        sampling: how images are generated, apart from how many.
        scoring: how scores are measured; which ones is said by `config`.
        seed: of prompts, noise and resampling.

    Raises:
        MemControlError: a score that does not exist, or that this model or these data cannot have, before any training.
    """

    def __init__(
        self,
        frozen: FrozenPipeline,
        dataset: Dataset,
        *,
        folder: Path,
        config: MonitorConfig,
        sampling: SamplingConfig,
        scoring: ScoringConfig | None = None,
        seed: int,
    ) -> None:
        self.frozen, self.config, self.sampling, self.seed = frozen, config, sampling, seed
        self.folder, self.looks = RunFolder(folder), list[Look]()
        scoring = ScoringConfig() if scoring is None else scoring
        check_scoring(config.measures, scoring)
        for name in config.measures:
            _check_captions(name, frozen, dataset)
        _check_counts(dataset)
        real = real_images(frozen, dataset)
        self.prompts = drawn_prompts(dataset.training.captions, config.images, seed)
        self.scorer = scorer_of(frozen, real, config.measures, scoring, images=config.images, seed=seed)
        self.attacker = Attacker(
            frozen, dataset, real, config.measures, config=scoring.attack, sampling=sampling, seed=seed
        )
        self.sheet = Sheet(self.scorer, copying_encoder(config.measures, self.scorer), config.grid)
        # Held-out images in place of generated ones: what cannot be measured is found now, and references are fitted.
        finite(self.scorer(np.resize(real.fidelity, (config.images, *real.fidelity.shape[1:])), self.prompts))

    def look(self, step: int, inference: AtInference | None = None) -> Look:
        """Generate, score, and write this look's picture and its line of the table; a step seen before is seen anew.

        Args:
            step: optimizer steps done, more than at the looks before.
            inference: a mitigation at sampling, of the model as it is now.

        Raises:
            MemControlError: a score that is not a number.
            RunError: the folder cannot be written to.
        """
        with undisturbed(self.frozen):
            drawn = sample(self.frozen, self.prompts, self.sampling, seed=self.seed, inference=inference)
            images = np.concatenate(list(drawn))
            found = finite(self.scorer(images, self.prompts) | self.attacker(inference))
            scores = {name: found[name] for name in self.config.measures}
            before = [look for look in self.looks if look.step < step]
            look = judged(step, scores, before, self.config)
            self.looks = [*before, look]
            self._write(look, images)
        return look

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to go on as if nothing had happened; JSON-ready."""
        return {"measures": list(self.config.measures), "looks": [look.to_json() for look in self.looks]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the table has the looks of that state and no others.

        Raises:
            RunError: the state is of other measures, or the folder cannot be written to.
        """
        if list(state["measures"]) != list(self.config.measures):
            raise RunError(
                f"this training was monitored by {', '.join(state['measures'])}, and now "
                f"{', '.join(self.config.measures)} are asked for: ask for the same, or train anew in another folder"
            )
        self.looks = [Look.from_json(content) for content in state["looks"]]
        if self.looks:
            self._write(None, None)

    def _write(self, look: Look | None, images: Pixels | None) -> None:
        """The table of all looks, and the picture of one of them."""
        path = self.folder.path
        try:
            if look is not None and images is not None:
                picture = self.sheet.picture(images, look)
                self.folder.write_picture(path / "samples" / f"step-{look.step:06d}.png", picture)
            rows = [one.row() for one in self.looks]
            self.folder.write_table(path / TABLE, columns(self.config.measures), rows)
        except OSError as error:
            raise RunError(f"cannot write to {path}: {reason(error)}; free space or name another folder") from error


def _check_counts(dataset: Dataset) -> None:
    """Refuse data without what a look compares with; fidelity scores have needs of their own."""
    for part, needed in NEEDED.items():
        count = dataset.counts()[part]
        if count < needed:
            raise DataError(f"a look needs {needed} {part} images or more, {dataset.name} has {count}: give more data")


def _check_captions(name: str, frozen: FrozenPipeline, dataset: Dataset) -> None:
    """Refuse a score that needs captions where there are none."""
    if ":" in name:
        return
    measure, source = parse_name(name)
    if MEASURES[measure].family not in ("alignment", "noise") and source != "noise":
        return
    if not isinstance(frozen, LatentPipeline):
        raise ModelError(f"score {name} needs captions, and model {frozen.name} takes no text: drop that score")
    if not any(dataset.training.captions):
        raise DataError(f"score {name} needs captions, and {dataset.name} has none: drop that score")


@contextmanager
def undisturbed(frozen: FrozenPipeline) -> Iterator[None]:
    """Inside, the U-Net is evaluated; after, its modules and all random number generators are as they were before."""
    modes = {module: module.training for module in frozen.unet.modules()}
    python, numpy = random.getstate(), np.random.get_state()
    devices = [frozen.device] if frozen.device.type == "cuda" else []
    frozen.unet.eval()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        random.setstate(python)
        np.random.set_state(numpy)

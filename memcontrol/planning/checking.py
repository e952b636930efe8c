"""The checks of a dry run: each gives what it found, and what is wrong is kept as a line instead of ending the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from memcontrol.cache import existing
from memcontrol.config import DataConfig, ScoringConfig
from memcontrol.errors import DataError, MemControlError, ModelError, RunError
from memcontrol.measures import MEASURES

if TYPE_CHECKING:
    from memcontrol.data.images import Dataset
    from memcontrol.pipeline.outline import PipelineOutline

T = TypeVar("T")
DECODED = 16
"""Images of a user's own source that are decoded, spread evenly over it."""
SMALLEST = 64
"""Height and width of images that an encoder is tried on, in pixels."""


@dataclass
class Problems:
    """What keeps a command from starting, one line each, in the order found."""

    lines: list[str] = field(default_factory=list)

    def of(self, check: Callable[[], T]) -> T | None:
        """What a check gives; None where it fails, its reason kept."""
        try:
            return check()
        except MemControlError as error:
            self.add(str(error))
            return None

    def fails(self, check: Callable[[], object]) -> bool:
        """Whether a check fails, its reason kept."""
        before = len(self.lines)
        self.of(check)
        return len(self.lines) > before

    def add(self, line: str) -> None:
        """Keep a line once."""
        if line not in self.lines:
            self.lines.append(line)


@dataclass(frozen=True)
class DrawnData:
    """A data set as it would be split if every image decoded.

    Attributes:
        decode_s: seconds to read one image; 0 where images are in memory.
    """

    dataset: Dataset
    decode_s: float


def drawn_data(config: DataConfig, *, resolution: int, seed: int) -> DrawnData:
    """The data set that a run would draw; `DECODED` images of a user's own source are decoded, a run decodes all.

    Raises:
        DataError: no such source, one that cannot be read or is too small, or an image that does not decode.
        MissingPackageError: the source needs a package that is not installed.
    """
    from memcontrol.data import SOURCES, load_dataset, source_pool
    from memcontrol.data.splitting import split_pool

    if config.source in SOURCES:
        return DrawnData(load_dataset(config, resolution=resolution, seed=seed), 0.0)
    if config.source.startswith("hf:") and not Path(config.source.removeprefix("hf:").partition(":")[0]).exists():
        _refuse_download(config.source)
    pool = source_pool(config, resolution)
    # By name instead of by content: what a run would leave out, since it does not decode or is a copy, is kept here.
    dataset = split_pool(replace(pool, digest=lambda i: pool.images.keys[i]), config, resolution=resolution, seed=seed)
    count = len(pool.images)
    sample = sorted({round(i * (count - 1) / max(1, DECODED - 1)) for i in range(DECODED)})
    began = time.perf_counter()
    for position in sample:
        try:
            pool.images.pixels([position])
        except DataError:
            if config.bad_images == "error":
                raise
    return DrawnData(dataset, (time.perf_counter() - began) / len(sample))


def _refuse_download(source: str) -> None:
    try:
        import datasets
    except ImportError:
        return  # the source itself says how to install it

    if not datasets.config.HF_DATASETS_OFFLINE:
        raise DataError(
            f"{source} may have to be downloaded, which a dry run does not do: set HF_DATASETS_OFFLINE=1 where it has "
            "been, or save it with save_to_disk and give that folder"
        )


def outlined(model: str, problems: Problems) -> PipelineOutline | None:
    """A model's networks without weights; its missing or broken files are kept as problems."""
    from memcontrol.pipeline.outline import file_problems, load_outline, weight_mismatch

    outline = problems.of(lambda: load_outline(model))
    if outline is None:
        return None
    missing = file_problems(outline.folder, model)
    for line in missing:
        problems.add(line)
    if not missing and (wrong := weight_mismatch(outline, model)):
        problems.add(wrong)
    return outline


def encoders_of(names: Sequence[str], scoring: ScoringConfig, problems: Problems) -> Mapping[str, int]:
    """The numbers in each encoder that the scores need; each that cannot be loaded is kept as a problem.

    Encoders are loaded from local files, on the CPU, and try two grey images.

    Args:
        names: of scores.
    """
    from memcontrol.score import encoder_names, parse_name

    own = [name for name in names if ":" not in name]
    aligned = {parse_name(name)[1] for name in own if MEASURES[parse_name(name)[0]].family == "alignment"}
    sizes: dict[str, int] = {}
    for name in encoder_names(names):
        numel = problems.of(lambda name=name: _tried(name, scoring, reads_text=name in aligned))  # type: ignore[misc]
        if numel is not None:
            sizes[name] = numel
    return sizes


def _tried(name: str, scoring: ScoringConfig, *, reads_text: bool) -> int:
    import numpy as np

    from memcontrol.encoders import AlignedEncoder, load_encoder

    if name in ("pixels", "latents"):
        return 0
    encoder: Any = load_encoder(name, weights=local_weights(name, scoring.encoder_weights.get(name)))
    grey = np.full((2, SMALLEST, SMALLEST, 3), 128, dtype=np.uint8)
    encoder(grey)
    if reads_text and isinstance(encoder, AlignedEncoder):
        encoder.similarities(grey, ["a photo"] * 2)
    networks = [value for value in vars(encoder).values() if hasattr(value, "parameters")]
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def local_weights(name: str, weights: str | None) -> str | None:
    """An encoder's weights as a local path, where a hub id is given or is the encoder's own; nothing is fetched.

    Raises:
        ModelError: the hub id has not been downloaded.
    """
    from memcontrol.encoders import clip, dinov2

    own = {"clip": clip.DEFAULT, "dinov2": dinov2.DEFAULT}
    if name not in own or (weights is not None and Path(weights).expanduser().exists()):
        return weights
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    source = weights or own[name]
    try:
        return snapshot_download(source, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"weights of encoder {name}: {source} has not been downloaded: run hf download {source} where there is a "
            f"network, or give a folder with --weights {name}=PATH"
        ) from error


def check_writable(out: Path) -> None:
    """Refuse a folder that could not be made, without making it.

    Raises:
        RunError: something else is there, or it cannot be written.
    """
    place = existing(out)
    if not place.is_dir() or not os.access(place, os.W_OK):
        what = "is not a folder" if not place.is_dir() else "cannot be written"
        raise RunError(f"cannot write to {out}: {place} {what}; name another folder with --out")


def known_scores(names: Collection[str], *, has_autoencoder: bool) -> tuple[str, ...]:
    """The scores of these that this kind of model has: without an autoencoder, raw ones would repeat the others."""
    from memcontrol.score import is_raw

    return tuple(name for name in names if has_autoencoder or not is_raw(name))

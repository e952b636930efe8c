"""Where generated images lie: nearest triples, histograms of distances, and captions ranked by copying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memcontrol.auditing.document import CaptionFact, Histogram, ImageFact, Triple
from memcontrol.auditing.subject import Subject
from memcontrol.data.images import Pixels
from memcontrol.metrics.copies import SUBSETS, distance_percentiles
from memcontrol.metrics.neighbourhood import gaps_to_heldout
from memcontrol.metrics.neighbours import nearest
from memcontrol.run import RunFolder

Features = NDArray[np.floating]
Float64 = NDArray[np.float64]

TRIPLES = 12
BINS = 40
IMAGES = "images"
"""Folder of the pictures, beside the document."""


@dataclass(frozen=True)
class Located:
    """Generated, training and held-out images under one encoder.

    Attributes:
        encoder: its name.
        generated, training, heldout, control: `(N, D)` each.
    """

    encoder: str
    generated: Features
    training: Features
    heldout: Features
    control: Features

    def gaps(self) -> Float64:
        """`(N,)`: how much nearer each generated image lies to training images than to as many held-out ones."""
        return gaps_to_heldout(self.generated, self.training, self.heldout)

    def to_training(self) -> tuple[Float64, NDArray[np.int64]]:
        """Distance to the nearest training image and its position, `(N,)` each."""
        return _nearest(self.generated, self.training)

    def to_heldout(self) -> tuple[Float64, NDArray[np.int64]]:
        """Distance to the nearest held-out image of all, and its position, `(N,)` each."""
        return _nearest(self.generated, self.heldout)


def nearest_triples(located: Located, subject: Subject, folder: RunFolder) -> list[Triple]:
    """The 12 generated images with the largest gaps, each beside its nearest training and held-out image.

    Writes the three pictures of each into the folder, as they were compared.
    """
    order = np.argsort(-located.gaps(), kind="stable")[:TRIPLES]
    (to_training, ours), (to_heldout, theirs) = located.to_training(), located.to_heldout()
    data, triples = subject.dataset, []
    for place, i in enumerate(order.tolist(), start=1):
        caption = subject.prompts[i] if subject.prompts else ""
        pictures = (
            ("generated", subject.generated[i], subject.keys[i], caption, None),
            *(
                (part, images[at], known.keys[at], known.captions[at], max(float(distance), 0.0))
                for part, images, known, at, distance in (
                    ("training", subject.real.training, data.training, ours[i], to_training[i]),
                    ("heldout", subject.real.copying, data.heldout.copying, theirs[i], to_heldout[i]),
                )
            ),
        )
        facts = {
            part: ImageFact(key=key, caption=text, distance=distance, file=_saved(folder, place, part, image))
            for part, image, key, text, distance in pictures
        }
        triples.append(Triple(encoder=located.encoder, **facts))
    return triples


def _saved(folder: RunFolder, place: int, part: str, image: Pixels) -> str:
    file = f"{IMAGES}/nearest-{place:02d}-{part}.png"
    folder.write_picture(folder.path / file, Image.fromarray(np.asarray(image)))
    return file


def distance_histogram(located: Located, *, rng: np.random.Generator) -> Histogram:
    """Nearest distances of generated images to equally many training and held-out images, and of honest ones.

    The larger set is cut to the smaller one's size, and shares are the mean over 32 random subsets of it. Honest ones
    are the held-out control images, to training.
    """
    size = min(len(located.training), len(located.heldout))
    distances = {
        "to_training": _subset_distances(located.generated, located.training, size, rng),
        "to_heldout": _subset_distances(located.generated, located.heldout, size, rng),
        "honest": _subset_distances(located.control, located.training, size, rng),
    }
    top = max(float(values.max()) for values in distances.values()) or 1.0
    edges = np.linspace(0.0, top, BINS + 1)
    shares = {key: _shares(values, edges) for key, values in distances.items()}
    return Histogram(
        encoder=located.encoder,
        edges=edges.tolist(),
        to_training=shares["to_training"],
        to_heldout=shares["to_heldout"],
        honest=shares["honest"],
        percentiles=_percentiles(located, rng),
    )


def _percentiles(located: Located, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    ours = distance_percentiles(located.generated, located.training, located.heldout, rng=rng)
    honest = distance_percentiles(located.control, located.training, located.heldout, rng=rng)
    sets = {"to_training": ours["training"], "to_heldout": ours["heldout"], "honest": honest["training"]}
    return {name: {str(rank): distance for rank, distance in ranks.items()} for name, ranks in sets.items()}


def _subset_distances(queries: Features, base: Features, size: int, rng: np.random.Generator) -> Float64:
    """`(S, N)` nearest distances to random subsets of `base`."""
    if size == len(base):
        return _nearest(queries, base)[0][None]
    drawn = (base[np.sort(rng.permutation(len(base))[:size])] for _ in range(SUBSETS))
    return np.stack([_nearest(queries, rows)[0] for rows in drawn])


def _shares(values: Float64, edges: Float64) -> list[float]:
    counts, _ = np.histogram(values, edges)
    return [float(share) for share in counts / values.size]


def caption_facts(located: Located, subject: Subject, magnitudes: Mapping[str, float]) -> list[CaptionFact]:
    """How near the images of each caption lie to training, the most copied first; none without captions.

    Args:
        magnitudes: training caption -> noise magnitude.
    """
    if not subject.has_text:
        return []
    gaps, (distances, _) = located.gaps(), located.to_training()
    training: Sequence[str] = subject.dataset.training.captions
    prompts = np.array(subject.prompts, dtype=str)
    facts = [
        CaptionFact(
            caption=str(caption),
            training=training.count(str(caption)),
            generated=int(mine.sum()),
            copy_gap=float(gaps[mine].mean()),
            nearest=float(distances[mine].min()),
            noise_magnitude=magnitudes.get(str(caption)),
        )
        for caption in np.unique(prompts)
        for mine in (prompts == caption,)
    ]
    return sorted(facts, key=lambda fact: (-fact.copy_gap, fact.nearest, fact.caption))


def _nearest(queries: Features, base: Features) -> tuple[Float64, NDArray[np.int64]]:
    distances, positions = nearest(queries, base, 1)
    return np.maximum(distances[:, 0].astype(np.float64), 0.0), positions[:, 0]


def pictures_of(folder: Path, triples: Sequence[Triple]) -> list[Path]:
    """The picture files that triples name."""
    return [folder / fact.file for triple in triples for fact in (triple.generated, triple.training, triple.heldout)]

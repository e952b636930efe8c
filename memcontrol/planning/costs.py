"""From what is trained and generated to operations, memory and disk: the arithmetic of a dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memcontrol.config import RunConfig
from memcontrol.measures import MEASURES
from memcontrol.planning.counting import FLOAT, ImageCost, TrainingCost
from memcontrol.planning.document import Need, Work
from memcontrol.planning.machine import FLOPS_PER_TFLOP

if TYPE_CHECKING:
    from memcontrol.data.images import Dataset
    from memcontrol.groups import ParameterGroup
    from memcontrol.pipeline.outline import PipelineOutline

MEMBERSHIP_PASSES = 10
"""U-Net passes for each image of a membership attack: `loss` makes ten, `pia` and `secmi` about as many or fewer."""
MAGNITUDE_PASSES = 20
"""The same of noise magnitude: ten times, each with the caption and without."""
DECODE_BATCH = 16
FULL_COPIES = {"copy to restore": 1, "gradients": 1, "optimizer": 2}
"""Copies of what trains, of its own size each, that a training holds beside the average."""
LIBRARIES = 750_000_000
"""Bytes of one worker before it has loaded anything: measured on a search on `tiny` (experiments/dry_run)."""
SVD_S = 6.6e-10
"""Seconds of a decomposition of `(m, n)` over m * n * min(m, n): 655 s for Stable Diffusion 1.5 on one core
(experiments/sd15_smoke)."""


@dataclass(frozen=True)
class Training:
    """Trainings of one kind.

    Attributes:
        groups: what trains; for candidates, all that a mask may switch on.
        count: how many.
        steps: optimizer steps of all of them together.
        evaluations: how many times images are generated and scored.
    """

    what: str
    groups: tuple[ParameterGroup, ...]
    count: int
    steps: int
    evaluations: int

    @property
    def names(self) -> tuple[str, ...]:
        """The U-Net's parameters that train, or whose weights a method changes."""
        return tuple(name for group in self.groups for name in group.parameters)

    @property
    def numel(self) -> int:
        """Numbers that train, each group at its largest level."""
        return sum(
            max(group.at(level).numel for level in range(1, 2 + len(group.alternatives))) for group in self.groups
        )


@dataclass(frozen=True)
class Written:
    """What of a trained model is kept on disk.

    Attributes:
        pipeline: all of its weights.
        checkpoints: from which a training goes on.
    """

    pipeline: bool = False
    checkpoints: bool = False


NOTHING = Written()


@dataclass(frozen=True)
class Costs:
    """What is known when all of it can be computed.

    Attributes:
        image: cost of one image in the pipeline's own parts.
        training: cost of one image in a step of each training, by its `what`.
        encoders: numbers in each encoder that scores need.
        scores: names of all that is scored.
        judged: whether real images are compared with, as in all but a plain fine-tuning.
        written: what of the trained model is written.
    """

    config: RunConfig
    outline: PipelineOutline
    dataset: Dataset
    image: ImageCost
    trainings: Sequence[Training]
    training: Mapping[str, TrainingCost]
    encoders: Mapping[str, int]
    scores: tuple[str, ...]
    judged: bool = True
    written: Written = NOTHING

    def work(self) -> tuple[Work, ...]:
        """Everything that takes time, in the order in which it happens."""
        real, shown = self.real_images(), len(set(self.dataset.training.captions))
        passed = self.image.encode + (self.image.decode if self.judged else 0)
        first = Work("encoding real images", 0, 0, real, _tera(real * passed + shown * self.image.text))
        found = [first] if self.image.encode else []
        if shifted := self._shifted():
            found.append(Work("decomposing weights", 0, 0, 0, 0.0, SVD_S * sum(m * n * min(m, n) for m, n in shifted)))
        return (*found, *(self._trained(training) for training in self.trainings))

    def _trained(self, training: Training) -> Work:
        flops = training.steps * self.config.tuning.batch * self.training[training.what].flops
        flops += training.evaluations * self.evaluation_flops()
        images = training.evaluations * self.config.sampling.images
        return Work(training.what, training.count, training.steps, images, _tera(flops))

    def evaluation_flops(self) -> int:
        """Generating the images of one evaluation, decoding them, and the attacks on the model itself."""
        sampling, attack = self.config.sampling, self.config.scoring.attack
        copies = 2 if sampling.guidance > 1 and self.outline.text_encoder is not None else 1
        each = sampling.steps * copies * self.image.forward + self.image.decode
        total = sampling.images * each
        asked = {name.partition("@") for name in self.scores if ":" not in name}
        families = {(MEASURES[measure].family, source) for measure, _, source in asked}
        members = min(attack.images, len(self.dataset.training))
        others = min(attack.images, len(self.dataset.heldout.copying))
        for family, source in sorted(families):
            if family == "membership":
                total += (members + others) * MEMBERSHIP_PASSES * self.image.forward
            elif family == "noise":
                total += members * MAGNITUDE_PASSES * self.image.forward
            elif family == "extraction":
                total += attack.prompts * (attack.generations or _generations(source)) * each
        return total

    def real_images(self) -> int:
        """Images that are read and encoded before anything is trained."""
        held, same = self.dataset.heldout, self.dataset.same_subjects
        if not self.judged:
            return len(self.dataset.training)
        sets = [self.dataset.training, held.fidelity, held.copying, *([] if same is None else [same])]
        return sum(map(len, sets))

    def device_memory(self) -> dict[str, int]:
        """Bytes on the device of one worker, for the training that needs most."""
        tuning = self.config.tuning
        largest = max((training.numel for training in self.trainings), default=0)
        saved = max((cost.saved_bytes for cost in self.training.values()), default=0)
        parts = {"pipeline": self.pipeline_bytes(), "encoders": sum(self.encoders.values()) * FLOAT}
        parts |= {what: copies * largest * FLOAT for what, copies in FULL_COPIES.items()}
        if tuning.ema_decay:
            parts["average"] = largest * FLOAT
        if shifted := self._shifted():
            parts["decompositions"] = _factors_bytes(shifted)
        step = -(-tuning.batch // tuning.accumulation) * saved
        decoded = min(DECODE_BATCH, self.config.sampling.images) * self.image.decode_bytes
        # They do not happen at once.
        parts["activations of a step, or of decoding"] = max(step, decoded)
        return {what: count for what, count in parts.items() if count}

    def host_memory(self) -> dict[str, int]:
        """Bytes that one worker holds in the machine's memory; what is memory-mapped from the cache is left out."""
        pixels = 3 * self.outline.resolution**2
        real = self.real_images() if self.judged and self.outline.vae is not None else 0
        generated = self.config.sampling.images * pixels
        return {"Python and libraries": LIBRARIES, "real images": real * pixels, "generated images": generated}

    def cached(self) -> dict[str, int]:
        """Bytes of the cache, where nothing is there yet."""
        channels, height, width = self.outline.latent_shape
        real, pixels = self.real_images(), 3 * self.outline.resolution**2
        parts = {"latents": len(self.dataset.training) * channels * height * width * 2 * FLOAT}
        if self.judged:
            parts["real images through the autoencoder"] = real * pixels
            parts["latents"] = real * channels * height * width * 2 * FLOAT
        captions = len(set(self.dataset.training.captions)) + 1
        parts["caption embeddings"] = captions * self.outline.text_length * self.outline.text_width * FLOAT
        if shifted := self._shifted():
            parts["decompositions"] = _factors_bytes(shifted)
        return parts

    def output(self) -> dict[str, int]:
        """Bytes of what is written beside tables and pictures."""
        largest = max((training.numel for training in self.trainings), default=0)
        parts = {"pipeline": self.pipeline_bytes()} if self.written.pipeline else {}
        if self.written.checkpoints:
            # Tensors, their average, the optimizer's two numbers for each; a new one is whole before the old one goes.
            parts["two checkpoints"] = 2 * 4 * largest * FLOAT
        return parts

    def pipeline_bytes(self) -> int:
        """Bytes of the pipeline's own numbers."""
        return sum(p.numel() for module in self.outline.modules.values() for p in module.parameters()) * FLOAT

    def _shifted(self) -> list[tuple[int, int]]:
        """Shapes of the weights that are trained by their singular values, each as a matrix."""
        from memcontrol.methods.decompositions import matrix_shape

        groups = [group for training in self.trainings for group in training.groups if group.method == "svdiff"]
        names = dict.fromkeys(name for group in groups for name in group.parameters)
        return [matrix_shape(self.outline.unet.get_parameter(name)) for name in names]


def needs(costs: Costs, *, workers: int, on_gpu: int, free: Callable[[str], int]) -> tuple[Need, ...]:
    """What must be free on the device, in memory and on disk.

    Args:
        on_gpu: workers that share the memory of one GPU; 0 where there is none and all share the machine's.
        free: bytes free by `GPU memory`, `memory`, `cache` and `output`.
    """
    device, host = costs.device_memory(), costs.host_memory()
    each_gpu = {what: count * on_gpu for what, count in device.items()}
    shared = host if on_gpu else {**device, **host}
    every = {what: count * workers for what, count in shared.items()}
    output = costs.output()
    return (
        *([Need("GPU memory", each_gpu, free("GPU memory"))] if on_gpu else []),
        Need("memory", every, free("memory")),
        Need("cache", costs.cached(), free("cache")),
        *([Need("output", output, free("output"))] if output else []),
    )


def _tera(flops: float) -> float:
    return flops / FLOPS_PER_TFLOP


def _factors_bytes(shapes: Sequence[tuple[int, int]]) -> int:
    return sum(min(m, n) * (m + n + 1) for m, n in shapes) * FLOAT


def _generations(rules: str) -> int:
    from memcontrol.attacks.rules import RULES

    return RULES[rules].generations

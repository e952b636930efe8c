"""A command's dry run: everything is checked and counted, nothing is fetched, trained or written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcontrol.cache import default_cache_folder, free_disk
from memcontrol.config import RunConfig
from memcontrol.confirming.settings import data_seed
from memcontrol.planning.checking import (
    DECODED,
    DrawnData,
    Problems,
    check_writable,
    drawn_data,
    encoders_of,
    known_scores,
    outlined,
)
from memcontrol.planning.costs import NOTHING, Costs, Training, Written, needs
from memcontrol.planning.counting import ImageCost, TrainingCost, image_cost, training_cost
from memcontrol.planning.document import Need, Plan, Work
from memcontrol.planning.machine import Machine, look

if TYPE_CHECKING:
    from memcontrol.pipeline.outline import PipelineOutline

HALF = {"fp16": "float16", "bf16": "bfloat16"}
ROWS, WIDTHS = 4096, (64, 4096)
"""The matrix product that is measured has the rows of a step's latents, at most these, and a width in this range."""


@dataclass(frozen=True)
class Request:
    """A command that is planned and not run.

    Attributes:
        settings: what the plan says was asked for, besides what is in every plan.
        trainings: what would be trained in this U-Net; may raise `MemControlError`, and add to the settings.
        checks: of what can be refused without the model.
        judged: whether real images are compared with.
        written: what of the trained model is written.
        scored: all that is scored; the configuration's objectives and reported scores unless given.
    """

    command: str
    config: RunConfig
    out: Path
    trainings: Callable[[PipelineOutline], Sequence[Training]]
    checks: tuple[Callable[[], object], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    tflops: float | None = None
    judged: bool = True
    written: Written = NOTHING
    scored: tuple[str, ...] | None = None


def planned(request: Request) -> Plan:
    """The plan of a command, with every problem that keeps it from starting."""
    from memcontrol.study.placement import worker_devices

    problems, config = Problems(), request.config
    for folder in (request.out, default_cache_folder()):
        problems.of(lambda folder=folder: check_writable(folder))  # type: ignore[misc]
    outline = outlined(config.model, problems)
    drawn = _drawn(config, outline, problems)
    for check in request.checks:
        problems.of(check)
    scores = _scores(request, outline, drawn, problems)
    encoders = encoders_of(scores, config.scoring, problems)
    trainings = None if outline is None else problems.of(lambda: tuple(request.trainings(outline)))
    devices = worker_devices(request.workers)
    settings = request.settings | {"workers": f"{len(devices)} on {devices[0].partition(':')[0]}"}
    found = Plan(request.command, settings, problems=tuple(problems.lines))
    if drawn is not None:
        found = replace(found, data=_data_facts(drawn))
    if outline is None:
        return found
    image = image_cost(outline)
    found = replace(found, model=_model_facts(outline, config.model, image))
    if drawn is None or trainings is None:
        return found
    each = _training_costs(trainings, outline, config)
    shared = request.judged, request.written
    costs = Costs(config, outline, drawn.dataset, image, trainings, each, encoders, scores, *shared)
    machine = _machine(devices, request, outline)
    return _costed(found, costs, machine, drawn, out=request.out, problems=problems)


def _scores(
    request: Request, outline: PipelineOutline | None, drawn: DrawnData | None, problems: Problems
) -> tuple[str, ...]:
    """What is scored, where it exists; checked against the numbers of images."""
    from memcontrol.score import check_counts, check_scoring

    config, scoring = request.config, request.config.scoring
    named = scoring.objectives + scoring.reported if request.scored is None else request.scored
    if request.judged and config.confirm.seeds:
        named += config.confirm.measures or ()
    if problems.fails(lambda: check_scoring(named, scoring)):
        return ()
    scores = known_scores(named, has_autoencoder=outline is None or outline.vae is not None)
    if drawn is not None:
        held, made = len(drawn.dataset.heldout.fidelity), config.sampling.images
        problems.fails(lambda: check_counts(scores, scoring.components, generated=made, reference=held))
    return scores


def _drawn(config: RunConfig, outline: PipelineOutline | None, problems: Problems) -> DrawnData | None:
    # Without a model, any size tells whether the images are there.
    resolution = 64 if outline is None else outline.resolution
    return problems.of(lambda: drawn_data(config.data, resolution=resolution, seed=data_seed(config)))


def _training_costs(
    trainings: Sequence[Training], outline: PipelineOutline, config: RunConfig
) -> dict[str, TrainingCost]:
    """What a step of each costs for one image; the same parameters are counted once."""
    known: dict[frozenset[str], TrainingCost] = {frozenset(): TrainingCost(0, 0)}
    checkpointing = config.tuning.gradient_checkpointing
    for one in trainings:
        names = frozenset(one.names)
        if names not in known:
            known[names] = training_cost(outline, names, checkpointing=checkpointing)
    return {one.what: known[frozenset(one.names)] for one in trainings}


def _machine(devices: list[str], request: Request, outline: PipelineOutline) -> Machine:
    """The machine, its rate measured at the sizes of this model's layers."""
    tuning = request.config.tuning
    _, height, width = outline.latent_shape
    rows = min(ROWS, max(1, tuning.batch // tuning.accumulation) * height * width)
    channels = outline.unet.config["block_out_channels"]
    side = max(WIDTHS[0], min(WIDTHS[1], 2 * sum(channels) // len(channels)))
    dtype = HALF.get(tuning.mixed_precision, "float32") if devices[0] != "cpu" else "float32"
    return look(devices, tflops=request.tflops, rows=rows, width=side, dtype=dtype)


def _costed(found: Plan, costs: Costs, machine: Machine, drawn: DrawnData, *, out: Path, problems: Problems) -> Plan:
    free = {
        "GPU memory": machine.gpu_memory or 0,
        "memory": machine.memory,
        "cache": free_disk(default_cache_folder()),
        "output": free_disk(out),
    }
    on_gpu = 0 if machine.gpu_memory is None else machine.together
    needed = needs(costs, workers=machine.workers, on_gpu=on_gpu, free=free.__getitem__)
    for need in needed:
        if need.bytes > need.free:
            problems.add(_short(need, machine))
    images = costs.real_images()
    work = (Work("reading real images", 0, 0, images, 0.0, 2 * drawn.decode_s * images), *costs.work())
    seconds = sum(one.duration(machine.tflops * machine.workers) for one in work)
    return replace(
        found,
        work=work,
        needs=needed,
        machine=machine,
        seconds=seconds,
        problems=tuple(problems.lines),
        assumptions=_assumptions(costs, machine, drawn),
    )


def _short(need: Need, machine: Machine) -> str:
    largest = max(need.parts, key=lambda part: need.parts[part])
    mend = {
        "GPU memory": ("use fewer --workers, " if machine.together > 1 else "use ")
        + "a smaller tuning.batch or a larger tuning.accumulation, or tuning.gradient_checkpointing",
        "memory": "use fewer --workers, a smaller --train-size, or a larger tuning.accumulation"
        if machine.workers > 1
        else "use a smaller --train-size, or a larger tuning.accumulation",
        "cache": "set MEMCONTROL_CACHE to a folder on a larger disk",
        "output": "name a folder on a larger disk with --out",
    }[need.where]
    return (
        f"{need.where}: an estimated {need.bytes / 1e9:.1f} GB is needed and {need.free / 1e9:.1f} GB is free "
        f"(most of it {largest}, {need.parts[largest] / 1e9:.1f} GB): {mend}"
    )


def _assumptions(costs: Costs, machine: Machine, drawn: DrawnData) -> tuple[str, ...]:
    """What the numbers rest on, in words."""
    said = [
        f"{machine.tflops:.3g} TFLOP/s for each worker: {machine.rate_source}",
        "operations are counted on this U-Net and autoencoder without weights; candidates count as masks with "
        "everything on, which is the most that any costs",
        "encoders, scores and proposals are not counted",
        "activations are those of float32 without fused attention: the most that they may need",
    ]
    if drawn.decode_s:
        said.append(
            f"reading an image takes {1000 * drawn.decode_s:.1f} ms, as {DECODED} of them did, and each is read twice"
        )
        said.append(f"{DECODED} images were decoded; the run decodes every one that it uses")
    if costs.image.encode:
        said.append("nothing is in the cache yet")
    return tuple(said)


def _data_facts(drawn: DrawnData) -> dict[str, Any]:
    dataset = drawn.dataset
    return {
        "name": dataset.name,
        "notes": list(dataset.notes),
        "sets": dict(dataset.counts()),
        "training captions": len(set(dataset.training.captions) - {""}),
        "seconds to read an image": drawn.decode_s,
    }


def _model_facts(outline: PipelineOutline, model: str, image: ImageCost) -> dict[str, Any]:
    parts = {name: sum(p.numel() for p in module.parameters()) for name, module in outline.modules.items()}
    flops = {"U-Net forward": image.forward, "encoding": image.encode, "decoding": image.decode, "text": image.text}
    return {
        "id": model,
        "folder": str(outline.folder),
        "resolution": outline.resolution,
        "latents": list(outline.latent_shape),
        "numel": parts,
        "tflop of one image": {name: count / 1e12 for name, count in flops.items() if count},
    }

"""The commands that can be planned: what each would train, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcontrol.comparison.cells import cells_of
from memcontrol.comparison.comparing import default_folder as comparison_folder
from memcontrol.comparison.config import ComparisonConfig
from memcontrol.comparison.methods import trained_groups
from memcontrol.config import RunConfig
from memcontrol.groups import ParameterGroup, architecture_fingerprint
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.mitigations.choices import MitigationChoices
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.planning.costs import Training, Written
from memcontrol.planning.document import Plan
from memcontrol.planning.planner import Request, planned
from memcontrol.releasing.config import FinetuneConfig
from memcontrol.releasing.curve import check_tracker
from memcontrol.space import load_space
from memcontrol.study.proposals import chosen_sampler
from memcontrol.study.references import everything, trajectory_steps
from memcontrol.study.search import default_folder
from memcontrol.study.trial import candidate_space
from memcontrol.transferring.config import TransferConfig
from memcontrol.transferring.rows import Role, named_masks, rows_of
from memcontrol.transferring.transfer import transfer_folder

if TYPE_CHECKING:
    from memcontrol.pipeline.outline import PipelineOutline
    from memcontrol.study.candidate import CandidateSpace

ROLES: Mapping[Role, str] = {
    "mask": "masks",
    "random": "random masks of their size",
    "all groups": "all groups of their spaces",
    "target": "masks found on the target",
    "full": "full fine-tuning",
    "freeze": "untuned model",
}
"""What the plan of a transfer calls its rows."""


def plan_search(
    config: RunConfig, out: Path | None = None, *, workers: int | None = None, tflops: float | None = None
) -> Plan:
    """What `memcontrol search` would do: candidates, the reference of full fine-tuning, and the confirmation.

    Args:
        out: run folder; the usual one unless given. Nothing is written there.
        workers: processes; None for one per GPU, or one per core where there is none.
        tflops: 1e12 floating-point operations a second that one worker sustains; measured unless given.
    """
    settings: dict[str, Any] = {"space": config.space, "budget": config.search.budget, "seed": config.seed}

    def trainings(outline: PipelineOutline) -> list[Training]:
        choices = MitigationChoices.of(config.mitigations)
        space = candidate_space(config, load_space(config.space), outline.unet, choices)
        settings.update(_space_settings(space, config))
        return search_trainings(space, config, outline)

    folder = out or default_folder(config)
    checks = (lambda: load_space(config.space), lambda: MitigationChoices.of(config.mitigations))
    return planned(Request("search", config, folder, trainings, checks, settings, workers, tflops))


def search_trainings(space: CandidateSpace, config: RunConfig, outline: PipelineOutline) -> list[Training]:
    """Candidates, counted with everything on; the references; and what is confirmed at most."""
    on = space.trained([space.highest(group) for group in space.groups])
    count = min(config.search.budget, space.size)
    rates = config.search.trajectory_rates or space.trajectory_rates()
    points = trajectory_steps(config)
    whole = (everything(outline.unet),)
    found = [
        Training("candidates", on, count, count * config.tuning.steps, count),
        Training(
            "full fine-tuning, the reference",
            whole,
            len(rates) * len(points),
            len(rates) * sum(points),
            len(rates) * len(points),
        ),
        Training("untuned model, the reference", (), 0, 0, 1),
    ]
    if seeds := config.confirm.seeds:
        again = max(1, config.confirm.trainings // seeds) * seeds
        found.append(Training("confirmation, at most", whole, again, again * config.tuning.steps, again))
    return found


def plan_finetune(
    mask: Mask, settings: FinetuneConfig, out: Path, *, workers: int | None = 1, tflops: float | None = None
) -> Plan:
    """What `memcontrol finetune` would do in one process, looks during training included.

    Args:
        workers: processes that divide each batch; None for one per GPU.
        tflops: as for `plan_search`.
    """
    resolved = settings.resolved(mask)
    tuning, every = resolved.tuning, resolved.monitor.every

    def plan() -> MitigationPlan:
        return MitigationPlan.of(resolved.mitigations or ())

    def trainings(outline: PipelineOutline) -> list[Training]:
        mask.check(outline.unet)
        taken = plan().tuning(tuning)
        steps = taken.stop or taken.steps
        # The untuned model is looked at too, and the last step whatever its number.
        looks = 1 + -(-steps // every) if every else 0
        return [Training("fine-tuning", trained_groups(mask), 1, steps, looks)]

    asked = {"mask": mask.name, "steps": tuning.steps, "batch": tuning.batch, "seed": resolved.seed}
    return planned(
        Request(
            "finetune",
            _finetune_run(resolved, mask),
            out,
            trainings,
            (lambda: check_tracker(resolved.tracker), plan),
            asked,
            workers,
            tflops,
            judged=every is not None,
            written=Written(pipeline=resolved.save != "tuned", checkpoints=bool(resolved.checkpoint_steps)),
            scored=resolved.monitor.measures if every else (),
        )
    )


def plan_comparison(
    config: ComparisonConfig, out: Path | None = None, *, workers: int | None = None, tflops: float | None = None
) -> Plan:
    """What `memcontrol compare` would do: every row for every seed; the data is that of the first seed."""
    shared = config.run(config.seeds[0])
    settings = {"rows": 0, "seeds": ", ".join(map(str, config.seeds)), "steps": config.tuning.steps}

    def trainings(outline: PipelineOutline) -> list[Training]:
        cells = cells_of(config)
        settings["rows"] = len(cells)
        return [
            Training(
                cell.name,
                cell.recipe.groups(outline.unet),
                len(config.seeds),
                len(config.seeds) * (cell.recipe.steps or config.tuning.steps),
                len(config.seeds),
            )
            for cell in cells
        ]

    folder, checks = out or comparison_folder(config), (lambda: cells_of(config),)
    return planned(Request("compare", shared, folder, trainings, checks, settings, workers, tflops))


def plan_transfer(
    config: TransferConfig, out: Path | None = None, *, workers: int | None = None, tflops: float | None = None
) -> Plan:
    """What `memcontrol transfer` would do: masks and all that they are compared with, for every seed.

    Rows that are there for one purpose count as the one of them that trains most.
    """
    shared = config.run(config.seeds[0])
    seeds = len(config.seeds)
    settings: dict[str, Any] = {"masks": len(config.masks), "seeds": ", ".join(map(str, config.seeds))}

    def trainings(outline: PipelineOutline) -> list[Training]:
        # Whether a mask fits is a matter of names and shapes; weights are not read.
        model = ModelIdentity(
            config.model, type(outline.unet).__name__, architecture_fingerprint(outline.unet), "not read"
        )
        rows = rows_of(config, outline.unet, model).rows
        settings["rows"] = len(rows)
        found = []
        for role, what in ROLES.items():
            chosen = [row.recipe for row in rows if row.role == role]
            if chosen:
                groups = max((one.groups(outline.unet) for one in chosen), key=_size)
                steps = sum(one.steps or config.tuning.steps for one in chosen) if groups else 0
                count = seeds * len(chosen)
                found.append(Training(what, groups, count if groups else 0, seeds * steps, count))
        return found

    folder = out or transfer_folder(config)
    checks = tuple(partial(named_masks, (path,), config.pick) for path in (*config.masks, *config.target_masks))
    return planned(Request("transfer", shared, folder, trainings, checks, settings, workers, tflops))


def _size(groups: tuple[ParameterGroup, ...]) -> int:
    return sum(group.numel for group in groups)


def _finetune_run(settings: FinetuneConfig, mask: Mask) -> RunConfig:
    """The settings that a fine-tuning shares with a run."""
    return RunConfig(
        data=settings.data,
        model=settings.model or mask.model.id,
        seed=settings.seed,
        tuning=settings.tuning,
        sampling=settings.sampling.model_copy(update={"images": settings.monitor.images}),
        scoring=settings.scoring,
    )


def _space_settings(space: CandidateSpace, config: RunConfig) -> Mapping[str, Any]:
    rates = space.rates
    sampler = chosen_sampler(
        config.search.sampler,
        budget=config.search.budget,
        groups=len(space.groups),
        objectives=len(config.scoring.objectives),
    )
    return {
        "groups": len(space.groups),
        "learning rates": f"{rates.rate(rates.first):g} to {rates.rate(rates.last):g}",
        "candidates in the space": space.size,
        "sampler": sampler,
        "steps": config.tuning.steps,
        "batch": f"{config.tuning.batch}, {config.tuning.batch // config.tuning.accumulation} at a time",
        "sampling": _sampling(config),
    }


def _sampling(config: RunConfig) -> str:
    sampling = config.sampling
    return f"{sampling.images} images, {sampling.steps} steps, guidance {sampling.guidance:g}"

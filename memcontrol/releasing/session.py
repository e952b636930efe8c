"""One full-length training in its folder: begun or taken up again, watched, and broken off at no loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from memcontrol.data.images import Dataset
from memcontrol.errors import MemControlError
from memcontrol.finetuning import Step, TrainingBatches, TrainingState
from memcontrol.finetuning.checkpoints import Checkpoint, Checkpoints
from memcontrol.methods import Tuning
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.monitoring import Look, Monitor
from memcontrol.pipeline import FrozenPipeline
from memcontrol.releasing.config import FinetuneConfig
from memcontrol.releasing.curve import LossCurve, start_tracker
from memcontrol.releasing.folder import ReleaseFolder
from memcontrol.releasing.outcome import LastClear, Outcome, stopped_outcome

EACH_PROCESS = ("rule",)
"""Parts of a training's state that each process has for itself."""


@dataclass(frozen=True)
class Told:
    """Who is told of a training as it goes on, in the first process alone.

    Attributes:
        note: of sentences.
        step: of every step.
        look: of every look of the monitor.
    """

    note: Callable[[str], object] = bool
    step: Callable[[Step], object] = bool
    look: Callable[[Look], object] = bool

    def here(self, accelerator: Accelerator) -> Told:
        """The same in the first process; nobody in the others."""
        return self if accelerator.is_main_process else Told()


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a mask's parameters are trained on, and how.

    Attributes:
        config: resolved.
        dataset: all of the training images; `kept` is what mitigations leave of it.
        identity: what must stay the same for the training to be taken up again.
        monitor: in the first process alone; None where nothing is looked at.
    """

    config: FinetuneConfig
    plan: MitigationPlan
    frozen: FrozenPipeline
    dataset: Dataset
    kept: Dataset
    batches: TrainingBatches
    accelerator: Accelerator
    folder: ReleaseFolder
    identity: Mapping[str, str]
    told: Told
    monitor: Monitor | None = None
    looks: list[Look] = field(default_factory=list)
    clear: LastClear = field(default_factory=LastClear)

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of this training."""
        return Checkpoints(self.folder.checkpoints, self.identity, self.accelerator)

    def run(self, tuning: Tuning, rate: float, saved: Checkpoint | None) -> Outcome | None:
        """Train to the end, or to where the monitor ends it; None where there was no step.

        The last step is looked at too, whatever its number, once the training itself changes nothing any more.

        Args:
            saved: where to go on from.

        Raises:
            DivergedError: the loss became NaN or infinite.
            MemControlError: the monitor ends it before its first step.
            RunError: the folder cannot be written to.
        """
        after = 0 if saved is None else saved.step
        state = TrainingState(None if saved is None else saved.content.get("training", {}))
        last: Step | None = None
        with self._recorded(after) as record:
            stopped = self._resumed(saved) if saved else self._begun(tuning)
            for step in self._steps(tuning, rate, state):
                last = step
                if step.number > after:
                    record(step)
                    stopped = self._due(step.number) and self._looked(step.number, tuning, step)
                    self._check_point(step.number, state)
                if stopped:
                    break
            if last is None:
                return None
            if not stopped and self._due_at_end(last.number):
                stopped = self._looked(last.number, tuning, last)
        return self._outcome(last, stopped)

    def _steps(self, tuning: Tuning, rate: float, state: TrainingState) -> Iterator[Step]:
        return self.plan.steps(
            self.frozen,
            self.kept,
            tuning.parameters,
            self.batches,
            learning_rate=rate,
            config=self.config.tuning,
            accelerator=self.accelerator,
            state=state,
        )

    @contextmanager
    def _recorded(self, after: int) -> Iterator[Callable[[Step], None]]:
        """Inside, a function to call after each step: its line in the table, the tracker's, and whoever is told."""
        if not self.accelerator.is_main_process:
            yield lambda _: None
            return
        curve = LossCurve(self.folder.losses, after=after)
        start_tracker(self.accelerator, self.folder.records, self.config.tracker, self.identity, after=after)

        def record(step: Step) -> None:
            curve.add(step)
            found = {"loss": step.loss, "learning_rate": step.learning_rate, "kept": step.kept}
            self.accelerator.log(found, step=step.number)
            self.told.step(step)

        try:
            yield record
        finally:
            curve.close()
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _resumed(self, saved: Checkpoint) -> bool:
        """Whether the training had been ended by a look; what the monitor had seen is with it again."""
        if self.monitor is not None:
            self.monitor.load_state_dict(saved.content["monitor"])
            self.looks[:] = self.monitor.looks
            self.clear.load_state_dict(saved.content["clear"])
        self.told.note(f"goes on from step {saved.step:,}, where the last checkpoint was written")
        return self._agreed(bool(self.looks) and self.looks[-1].stop)

    def _begun(self, tuning: Tuning) -> bool:
        """The look before the first step, where looks are asked for; it may not end the training."""
        if self.config.monitor.due(0) and self._looked(0, tuning, None):
            why = self.looks[-1].reason if self.looks else "the first process says why"
            raise MemControlError(f"nothing was trained, since the untuned model is stopped already: {why}")
        return False

    def _due(self, number: int) -> bool:
        """Whether a look is due after a step that is not the last."""
        return self.config.monitor.due(number) and number < self.plan.tuning(self.config.tuning).steps

    def _due_at_end(self, number: int) -> bool:
        """Whether the last step has not been looked at."""
        return self.config.monitor.every is not None and not self._due(number)

    def _outcome(self, last: Step, stopped: bool) -> Outcome:
        if not self.looks:
            return Outcome(last, last.number)
        if not stopped:
            return Outcome(last, last.number, self.looks[-1])
        outcome = stopped_outcome(last, self.looks, self.clear)
        for note in outcome.notes:
            self.told.note(note)
        return outcome

    def _looked(self, number: int, tuning: Tuning, step: Step | None) -> bool:
        """Look; whether the training ends here, which all processes find alike."""
        if self.monitor is not None:
            self._look(self.monitor, number, tuning, step)
        return self._agreed(bool(self.looks) and self.looks[-1].stop)

    def _look(self, monitor: Monitor, number: int, tuning: Tuning, step: Step | None) -> None:
        with torch.no_grad(), _averaged(step):
            with tuning.folded():
                inference = self.plan.sampler(self.frozen, self.kept, self.config.sampling, seed=self.config.seed)
                look = monitor.look(number, inference)
            if look.clear and self.config.monitor.stops:
                self.clear.keep(number, tuning.parameters)
        self.looks[:] = monitor.looks
        self.accelerator.log({name: score.value for name, score in look.scores.items()}, step=number)
        self.told.look(look)

    def _agreed(self, flag: bool) -> bool:
        """What the first process says."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(broadcast(torch.tensor([float(flag)], device=self.accelerator.device), from_process=0).item())

    def _check_point(self, number: int, state: TrainingState) -> None:
        every = self.config.checkpoint_steps
        if not every or number % every:
            return
        content: dict[str, Any] = {"training": state.state_dict()}
        if not self.accelerator.is_main_process:
            # What all processes have alike is read from the first one's file.
            parts = content["training"]
            content = {"training": {name: parts[name] for name in EACH_PROCESS if name in parts}}
        elif self.monitor is not None:
            content |= {"monitor": self.monitor.state_dict(), "clear": self.clear.state_dict()}
        self.checkpoints.save(number, content)


@contextmanager
def _averaged(step: Step | None) -> Iterator[None]:
    """Inside, the tuned tensors hold their average; before the first step there is none."""
    if step is None:
        yield
        return
    with step.averaged():
        yield


def checked_processes(config: FinetuneConfig, plan: MitigationPlan, accelerator: Accelerator) -> FinetuneConfig:
    """The configuration that several processes can have: shards among them take steps that are not each other's.

    Raises:
        MemControlError: checkpoints or looks are asked for in a training in shards.
    """
    if accelerator.num_processes == 1 or not plan.in_shards:
        return config
    if config.checkpoint_every or config.monitor.every:
        raise MemControlError(
            "a training in shards is looked at and kept in checkpoints in one process alone: start one process, or "
            "leave out --checkpoint-every and --monitor-every"
        )
    return config.model_copy(update={"checkpoint_every": 0})

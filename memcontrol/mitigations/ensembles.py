"""Training in shards: each with its own optimizer, schedule, average and loss bank; what they trained is averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from numpy.typing import NDArray

from memcontrol.config import TuningConfig
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.finetuning import AfterStep, Step, TrainingState, finetune_pipeline
from memcontrol.mitigations.loss_bank import LossBankRecord
from memcontrol.mitigations.own_process import alone, summed
from memcontrol.mitigations.shards import Members, Shard, lacking, redistributed, share
from memcontrol.pipeline import FrozenPipeline


@dataclass(frozen=True)
class EnsembleRecord:
    """What the shards hold and skipped, after a whole round.

    Attributes:
        rounds: done.
        banks: one of each shard; none without control.
        members: which training images each shard holds.
        steps: `(K,)` steps of each shard.
        extra: `(K,)` how many of these were of augmented samples.
        augmented: `(N,)` how often each training image was in one of those.
    """

    rounds: int
    banks: tuple[LossBankRecord, ...]
    members: tuple[Members, ...]
    steps: NDArray[np.int64]
    extra: NDArray[np.int64]
    augmented: NDArray[np.int64]

    @property
    def skips(self) -> NDArray[np.int64]:
        """`(N,)` how often each training image was skipped, over all shards and rounds."""
        return sum((bank.skips for bank in self.banks), np.zeros_like(self.augmented))

    @property
    def seen(self) -> NDArray[np.int64]:
        """`(N,)` how often each training image was judged by a loss bank, likewise."""
        return sum((bank.seen for bank in self.banks), np.zeros_like(self.augmented))


class EnsembleTraining:
    """One training in shards.

    Args:
        rounds, moved: as in `IterativeEnsemble`.

    Attributes:
        record: how it stands after the last whole round; None before the first, of those taken up again too.
    """

    def __init__(self, frozen: FrozenPipeline, shards: Sequence[Shard], *, rounds: int, moved: float = 0.0) -> None:
        self.frozen, self.shards, self.rounds, self.moved = frozen, tuple(shards), rounds, moved
        self.record: EnsembleRecord | None = None
        self._number, self._turn = 0, 0
        self._parameters: Mapping[str, torch.nn.Parameter] = {}

    def steps(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        *,
        learning_rate: float,
        config: TuningConfig,
        accelerator: Accelerator,
        after: AfterStep | None = None,
        state: TrainingState | None = None,
    ) -> Iterator[Step]:
        """Train in shards, yielding after every step of any of them; once.

        `config.steps` are divided among the shards, so that it costs what plain training costs; each has its optimizer,
        its average, and its learning rate's rise and fall over its own steps. At the last step of a round on which the
        shards are averaged, and so at the very last step, `parameters` hold the average of all shards, and inside the
        step's `averaged()` that of their running averages; at other steps, those of the shard whose turn it is.

        Under several processes the shards are divided among them, and each process yields its own shards' steps.

        Args:
            parameters: all that trains, from `memcontrol.methods.tuned`; nothing else is touched.
            learning_rate: its peak.
            after: what is done to the trained tensors after each optimizer step.
            state: where this process's shards are kept, to be saved; one that was saved has them go on from there.

        Raises:
            DivergedError: a shard's loss became NaN or infinite.
            MemControlError: fewer steps than shards times rounds, more processes than shards, float16 with more than
                one shard to a process, or a second training.
        """
        own = self.shards[accelerator.process_index :: accelerator.num_processes]
        self._check(config, accelerator, len(own))
        for place, shard in enumerate(self.shards):
            shard.total = share(config.steps, len(self.shards), place)
        self._parameters = parameters
        for shard in own:
            shard.tensors = [parameter.detach().clone() for parameter in parameters.values()]
        if state is not None:
            state.add("ensemble", _Kept(self, own))
        for shard in own:
            shard.training = finetune_pipeline(
                self.frozen,
                parameters,
                shard.batches,
                learning_rate=learning_rate,
                config=config.model_copy(update={"steps": shard.total}),
                accelerator=alone(accelerator),
                rule=shard.rule,
                after=after,
                state=shard.state,
            )
            if shard.done:
                shard.last = next(shard.training)
        yield from self._rounds(own, accelerator, self._number)

    def _rounds(self, own: Sequence[Shard], accelerator: Accelerator, resumed: int) -> Iterator[Step]:
        """The steps of all rounds but for those before step `resumed`, which is done and yielded once more."""
        number = 0
        for place in range(self.rounds):
            turns = [share(shard.total, self.rounds, place) for shard in own]
            ends = number + sum(turns)
            for turn, shard in enumerate(own):
                if number + turns[turn] < resumed:
                    number += turns[turn]
                    continue
                shard.enter(self._parameters)
                for _ in range(turns[turn]):
                    number += 1
                    if number < resumed:
                        continue
                    self._number, self._turn = number, turn
                    if number < ends:
                        yield self._advanced(shard, number, resumed)
                    else:
                        step = self._advanced(shard, number, resumed)
                shard.leave(self._parameters)
            if ends < resumed:
                continue
            if ends > resumed:
                self._end_round(place, own, accelerator)
            own[-1].enter(self._parameters)
            yield step

    def _check(self, config: TuningConfig, accelerator: Accelerator, own: int) -> None:
        """Raise where these settings cannot be trained with."""
        shards, processes = len(self.shards), accelerator.num_processes
        if config.steps // shards < self.rounds:
            raise MemControlError(
                f"{config.steps} steps for {shards} shards and {self.rounds} rounds: each shard takes a step in each "
                f"round, so give at least {shards * self.rounds} steps, or fewer shards or rounds"
            )
        if processes > shards:
            raise MemControlError(
                f"{processes} processes for {shards} shards: start as many processes as shards at most"
            )
        if own > 1 and accelerator.mixed_precision == "fp16":
            raise MemControlError(
                "shards of one process share a loss scaler, which float16 cannot train with: use bf16, or no mixed "
                "precision, or one process for each shard"
            )
        if self.shards[0].total:
            raise MemControlError("these shards have been trained: make new ones with IterativeEnsemble.training")

    def _advanced(self, shard: Shard, number: int, resumed: int) -> Step:
        """The shard's next step, numbered among those of all shards; the last one again where that was resumed from."""
        try:
            step = shard.last if number == resumed and shard.last is not None else shard.advance()
            return replace(step, number=number)
        except DivergedError as error:
            if len(self.shards) == 1:
                raise
            raise DivergedError(f"shard {self.shards.index(shard) + 1} of {len(self.shards)}: {error}") from error

    def _end_round(self, place: int, own: Sequence[Shard], accelerator: Accelerator) -> None:
        """Average the shards, or redistribute images among them; then keep a record."""
        if self.moved and len(self.shards) > 1 and (self.rounds - place) % 2 == 0:
            counts = summed(np.stack([shard.skips for shard in self.shards]), accelerator)
            held = redistributed([shard.members for shard in self.shards], counts, self.moved)
            for shard, members in zip(self.shards, held, strict=True):
                shard.hold(members)
        else:
            self._average(own, accelerator)
        self.record = self._recorded(place + 1, accelerator)

    @torch.no_grad()
    def _average(self, own: Sequence[Shard], accelerator: Accelerator) -> None:
        """Give every shard the mean of all, weighted by the samples of their epochs."""
        about = own[0].copies
        if accelerator.num_processes > 1:
            about = [broadcast(tensor.clone(), from_process=0) for tensor in about]
        samples = sum(shard.size for shard in self.shards)
        sums = lacking([shard.copies for shard in own], [shard.size / samples for shard in own], about)
        if accelerator.num_processes > 1:
            sums = [accelerator.reduce(tensor) for tensor in sums]
        means = [centre + lack for centre, lack in zip(about, sums, strict=True)]
        for shard in own:
            for tensor, mean in zip(shard.copies, means, strict=True):
                tensor.copy_(mean)

    def _recorded(self, rounds: int, accelerator: Accelerator) -> EnsembleRecord:
        """Of all processes; what a process does not train stands at zero in it."""
        shards = self.shards
        counts = summed(np.array([[shard.done, shard.extra] for shard in shards]), accelerator)
        return EnsembleRecord(
            rounds=rounds,
            banks=tuple(
                LossBankRecord(*(summed(array, accelerator) for array in (bank.means, bank.skips, bank.seen)))
                for bank in (shard.bank for shard in shards)
                if bank is not None
            ),
            members=tuple(shard.members.copy() for shard in shards),
            steps=counts[:, 0],
            extra=counts[:, 1],
            augmented=summed(np.sum([shard.augmented for shard in shards], axis=0), accelerator),
        )


@dataclass(frozen=True)
class _Kept:
    """What is saved of one process's shards."""

    training: EnsembleTraining
    own: Sequence[Shard]

    def state_dict(self) -> dict[str, Any]:
        training = self.training
        live = list(training._parameters.values())
        shards = [shard.state_dict(live if turn == training._turn else None) for turn, shard in enumerate(self.own)]
        return {"number": training._number, "turn": training._turn, "shards": shards}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.training._number, self.training._turn = state["number"], state["turn"]
        for shard, saved in zip(self.own, state["shards"], strict=True):
            shard.load_state_dict(saved)

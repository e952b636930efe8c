"""Shards of a training set: how it is divided, drawn from, redistributed, and how what they train is averaged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memcontrol.errors import MemControlError
from memcontrol.finetuning import Batch, Batches, LossRule, Step, TrainingBatches, TrainingState
from memcontrol.mitigations.loss_bank import LossBank
from memcontrol.mitigations.threshold_augmentation import AugmentedBatches

_SPLIT, _DRAW = 301, 302

Members = NDArray[np.intp]
"""`(n,)` positions of the training images that one shard holds."""


def split(images: int, shards: int, *, seed: int) -> tuple[Members, ...]:
    """Positions of `images` training images in shuffled shards whose sizes differ by one at most.

    An image that repeats in an epoch is in one shard with all its repeats. One shard holds all, in their order.

    Raises:
        MemControlError: more shards than images.
    """
    if shards > images:
        raise MemControlError(
            f"{shards} shards for {images} training images: expected at least one image in each; "
            f"ask for {images} shards at most, or for more training images"
        )
    order = np.random.default_rng([seed, _SPLIT]).permutation(images) if shards > 1 else np.arange(images)
    return tuple(np.array_split(order, shards))


def redistributed(members: Sequence[Members], counts: NDArray[np.int64], part: float) -> tuple[Members, ...]:
    """Shards after each gave its most-counted images to the next, the last to the first, all at the same time.

    Args:
        counts: `(K, N)` of each shard, over all training images; of equal counts, those that stand first go.
        part: share of its images that a shard gives, rounded down; below 1, so that none is left empty.

    Source: Guan et al. 2025 (arXiv 2502.09434), "memory samples redistribute".
    """
    kept, given = [], []
    for held, count in zip(members, counts, strict=True):
        order = np.argsort(-count[held], kind="stable")
        going = order[: math.floor(part * len(held))]
        kept.append(np.delete(held, going))
        given.append(held[going])
    return tuple(np.concatenate([kept[k], given[k - 1]]) for k in range(len(kept)))


def lacking(
    copies: Sequence[Sequence[torch.Tensor]], weights: Sequence[float], about: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """What `about` lacks to the weighted mean of the copies, tensor by tensor: the sum of `weight * (copy - about)`.

    About one of the copies, it is zero to the last bit where all copies are equal; a plain weighted sum is not exact.

    Args:
        weights: of each copy; over all copies (of all processes, whose sums add up) they sum to one.
        about: of the same shapes as each copy.
    """
    sums = [torch.zeros_like(tensor) for tensor in about]
    for copy, weight in zip(copies, weights, strict=True):
        for total, tensor, centre in zip(sums, copy, about, strict=True):
            total.add_(tensor - centre, alpha=weight)
    return sums


class ShardBatches:
    """Batches of some of the training images, which may change between steps.

    Args:
        seed: with that of `plain`, and all images as members, these are the plain batches.
    """

    def __init__(self, plain: TrainingBatches, members: Members, *, seed: int) -> None:
        self.plain, self.seed = plain, seed
        self._began, self._drawn = 0, self._of(members, seed)
        self._held: Members | None = None

    def at(self, step: int) -> Batch:
        """The batch of one of the shard's own steps."""
        return self._drawn.at(step - self._began)

    def hold(self, members: Members, step: int) -> None:
        """Draw from `members` from `step` on, beginning a new epoch."""
        self._began, self._drawn = step, self._of(members, mixed(self.seed, _DRAW, step))
        self._held = members

    def state_dict(self) -> dict[str, Any]:
        """Since which of its steps it draws from which members; None from the start."""
        return {"began": self._began, "members": self._held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        if state["members"] is not None:
            self.hold(np.asarray(state["members"]), state["began"])

    def _of(self, members: Members, seed: int) -> TrainingBatches:
        repeats = np.zeros_like(self.plain.repeats)
        repeats[members] = self.plain.repeats[members]
        return replace(self.plain, repeats=repeats, seed=seed)


def mixed(*numbers: int) -> int:
    """A seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def share(total: int, parts: int, place: int) -> int:
    """How many of `total` steps the part at `place` has, where they are divided as evenly as whole steps can be."""
    return total * (place + 1) // parts - total * place // parts


@dataclass(eq=False)
class Shard:
    """What one shard keeps to itself between its turns.

    Attributes:
        members: which training images it holds now.
        drawn: where its ordinary batches come from.
        batches: what it trains on: `drawn`, or that with something in front.
        bank: its loss bank, where it has one; `rule` is that bank, or what stands beside it.
        counted: `(N,)` its bank's skips at the last redistribution; empty before the first.
        training: its own `finetune`, which holds its optimizer, schedule and average.
        state: of that.
        tensors: its copy of the trained tensors.
        last: its last step.
        done, total: steps done, and to do in all.
    """

    members: Members
    drawn: ShardBatches
    batches: Batches
    bank: LossBank | None = None
    rule: LossRule | None = None
    counted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    training: Iterator[Step] | None = None
    state: TrainingState = field(default_factory=TrainingState)
    tensors: list[torch.Tensor] = field(default_factory=list)
    last: Step | None = None
    done: int = 0
    total: int = 0

    @property
    def size(self) -> int:
        """Samples of an epoch, repeats included."""
        return int(self.drawn.plain.repeats[self.members].sum())

    @property
    def skips(self) -> NDArray[np.int64]:
        """`(N,)` how often each training image was skipped here since the last redistribution."""
        skips = np.zeros(len(self.drawn.plain.repeats), dtype=np.int64) if self.bank is None else self.bank.skips
        return skips - self.counted if len(self.counted) else skips

    @property
    def extra(self) -> int:
        """How many of its steps were of augmented samples."""
        return self.batches.extra if isinstance(self.batches, AugmentedBatches) else 0

    @property
    def augmented(self) -> NDArray[np.int64]:
        """`(N,)` how often each training image was in one of those."""
        if isinstance(self.batches, AugmentedBatches):
            return self.batches.augmented
        return np.zeros(len(self.drawn.plain.repeats), dtype=np.int64)

    @property
    def copies(self) -> list[torch.Tensor]:
        """Its trained tensors, and after them its running averages of them, where it keeps such."""
        average = None if self.last is None else self.last.average
        return [*self.tensors, *(average.tensors if average is not None else ())]

    @torch.no_grad()
    def enter(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Put its tensors in the place of another shard's."""
        for parameter, own in zip(parameters.values(), self.tensors, strict=True):
            parameter.copy_(own)

    @torch.no_grad()
    def leave(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Keep its tensors for the next turn."""
        for parameter, own in zip(parameters.values(), self.tensors, strict=True):
            own.copy_(parameter)

    def advance(self) -> Step:
        """One step of its own."""
        if self.training is None:
            raise MemControlError("a shard was asked to train before its training began")
        self.last = next(self.training)
        self.done += 1
        return self.last

    def hold(self, members: Members) -> None:
        """Draw from `members` from its next ordinary step on, and count skips from zero."""
        self.members = members
        if self.bank is not None:
            self.counted = self.bank.skips.copy()
        self.drawn.hold(members, self.done - self.extra)

    def state_dict(self, current: Sequence[torch.Tensor] | None = None) -> dict[str, Any]:
        """All that its next turn depends on.

        Args:
            current: its tensors, where it is its turn now.
        """
        return {
            "members": self.members,
            "counted": self.counted,
            "tensors": list(self.tensors if current is None else current),
            "done": self.done,
            "drawn": self.drawn.state_dict(),
            "batches": self.batches.state_dict() if isinstance(self.batches, AugmentedBatches) else None,
            "bank": None if self.bank is None else self.bank.state_dict(),
            "training": self.state.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`, before its training begins."""
        self.members, self.done = np.asarray(state["members"]), state["done"]
        self.counted, self.tensors = np.asarray(state["counted"]), list(state["tensors"])
        self.drawn.load_state_dict(state["drawn"])
        if isinstance(self.batches, AugmentedBatches):
            self.batches.load_state_dict(state["batches"])
        if self.bank is not None:
            self.bank.load_state_dict(state["bank"])
        self.state = TrainingState(state["training"] if self.done else None)

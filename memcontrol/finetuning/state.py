"""What a training must remember to go on as if it had never been broken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from memcontrol.errors import RunError, reason

State = Mapping[str, Any]
"""Text keys; tensors, NumPy arrays, numbers, text and None, or lists and further mappings of such."""


@runtime_checkable
class Resumable(Protocol):
    """A part of a training that changes as it goes on."""

    def state_dict(self) -> State:
        """All that its next step depends on, as it stands."""

    def load_state_dict(self, state: State) -> None:
        """Take up a state that `state_dict` gave."""


class TrainingState:
    """The parts of one training, each under its name.

    A training adds its parts as it begins. Where there is a saved state, each part takes up its own at once, and the
    training goes on behind the step that the state was saved after. That step is yielded once more, so that it is at
    hand even where it was the last.

    Args:
        saved: what `state_dict` gave; None for a training from the start.
    """

    def __init__(self, saved: State | None = None) -> None:
        self._saved: Any = saved  # from a file, whose parts nobody has looked at yet
        self._parts = dict[str, Resumable]()

    @property
    def resumed(self) -> bool:
        """Whether there is a saved state."""
        return self._saved is not None

    def add(self, name: str, part: object) -> None:
        """Keep a part, and give it what was saved of it; a part that is not `Resumable` has nothing to remember.

        Raises:
            RunError: nothing was saved of it, or what is not its own.
        """
        if not isinstance(part, Resumable):
            return
        self._parts[name] = part
        if self._saved is not None:
            if not isinstance(self._saved, Mapping) or name not in self._saved:
                raise RunError(f"the saved state of this training has no {name}: train anew with --overwrite")
            try:
                part.load_state_dict(self._saved[name])
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
                raise RunError(
                    f"the saved state of this training's {name} does not fit ({reason(error)}): train anew with "
                    "--overwrite"
                ) from error

    def state_dict(self) -> dict[str, State]:
        """The state of every part."""
        return {name: part.state_dict() for name, part in self._parts.items()}

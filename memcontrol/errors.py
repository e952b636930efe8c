"""Errors that a user can mend; each message says what was wrong, what was expected, and how to mend it."""

import difflib
from collections.abc import Iterable


class MemControlError(Exception):
    """Bad input or state; the command line prints the message alone and exits with 1."""


class DataError(MemControlError):
    """A data source that cannot be read, or is too small for what is asked of it."""


class ModelError(MemControlError):
    """A model folder, hub id or architecture that cannot be used."""


class SpaceError(MemControlError):
    """A search space that is malformed, selects nothing, or gives one parameter to two groups."""


class MaskError(MemControlError):
    """A mask that does not fit the model or the space it is applied to."""


class RunError(MemControlError):
    """A run folder or study that does not belong to what is asked of it."""


class MissingPackageError(MemControlError):
    """An optional package that is not installed."""


class DivergedError(MemControlError):
    """A training loss that became NaN or infinite."""


def reason(error: Exception) -> str:
    """Why something could not be written or read, in a few words."""
    return getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)


MANY = 12
"""More names than these make a message too long to read."""


def nearest_names(name: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """The end of an "unknown name" message: the closest known names, then all of them, or those to be `listed`.

    Of many names, only the closest are given where there are some.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    shown = names if listed is None else sorted(listed)
    if close and len(shown) > MANY:
        return f"did you mean {' or '.join(close)}?"
    return (f"did you mean {' or '.join(close)}? " if close else "") + f"known: {', '.join(shown)}"

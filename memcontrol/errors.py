"""Errors that a user can mend; each message says what was wrong, what was expected, and how to mend it."""

import difflib
from collections.abc import Iterable, Sequence


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


class TooFewImages(MemControlError):  # noqa: N818 - named for what is wrong
    """Fewer images than a measure can be computed from."""


class DivergedError(MemControlError):
    """A training loss that became NaN or infinite."""


LONGEST = 200
"""Characters of another program's message that one of ours takes in."""
MANY = 12
"""More names than these make a message too long to read."""


def reason(error: Exception) -> str:
    """Why something could not be written or read, in a few words; without its path, which the message has."""
    return getattr(error, "strerror", None) or first_line(error)


def first_line(error: Exception) -> str:
    """What an error says, cut to one line of at most 200 characters; its kind where it says nothing."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many others there are: `a, b and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


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

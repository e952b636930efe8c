"""The options that say how images are read, declared once for every command that reads some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from memcontrol.cli.options import DEFAULTS, with_options
from memcontrol.cli.options import option as plain_option

_data = DEFAULTS.data
option = functools.partial(plain_option, panel="How images are read")
Reading = Mapping[str, Any]
"""The options' values by their key in `DataConfig`; None where one was not given."""
OPTIONS: Mapping[str, Any] = {
    "train_size": Annotated[int | None, option("Distinct training images.", _data.train_size)],
    "repeat": Annotated[str | None, option("F:K repeats a fraction F of the training images K times.")],
    "caption_column": Annotated[str | None, option("Column of the captions.", _data.caption_column)],
    "path_column": Annotated[str | None, option("Column of the image files.", "path, file_name or image")],
    "subject_column": Annotated[
        str | None, option("Column of the subjects; none is in two sets.", _data.subject_column)
    ],
    "split_column": Annotated[str | None, option("Column of train, validation or test.", _data.split_column)],
    "captions": Annotated[
        str | None, option("column, class-names of an image folder, or none for empty ones.", _data.captions)
    ],
    "bad_images": Annotated[str | None, option("error, or skip for images that do not decode.", _data.bad_images)],
}


def with_reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options in place of its keyword `reading`, a `Reading` of what they were given."""
    return with_options(command, "reading", OPTIONS)

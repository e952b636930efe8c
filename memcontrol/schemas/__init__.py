"""The JSON schema of every file that this program reads or writes, made from the classes that read and write them."""

from memcontrol.schemas.formats import FORMATS, Format, format_named

__all__ = ["FORMATS", "Format", "format_named"]

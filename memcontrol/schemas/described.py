"""JSON schemas of classes, whose keys are described by the classes' own docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class DescribedSchema(GenerateJsonSchema):
    """Pydantic's schema of a class, with what its docstring says of it, and of each key under "Attributes:"."""

    schema_dialect = DIALECT

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Never: a key's title would only be its name again."""
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Of a pydantic model."""
        return described(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        """Of a dataclass."""
        return described(super().dataclass_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        """Of a typed dict."""
        return described(super().typed_dict_schema(schema), schema["cls"])


def schema_of(kind: Any, title: str) -> dict[str, Any]:
    """The schema, in the draft 2020-12, of what is validated as a class.

    Args:
        kind: a pydantic model, a dataclass or a typed dict.
        title: of the schema.
    """
    made = TypeAdapter(kind).json_schema(schema_generator=DescribedSchema, by_alias=True)
    return {"$schema": DIALECT} | made | {"title": title}


def described(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    """An object's schema with descriptions from the docstrings of its class and of the classes above it."""
    said: dict[str, str] = {}
    for one in reversed(inspect.getmro(kind)):
        said |= attribute_texts(one.__doc__ or "")
    properties = {
        key: {**value, "description": said[name]} if (name := _attribute(key, said)) else value
        for key, value in schema.get("properties", {}).items()
    }
    told = {"description": first_sentence(kind.__doc__)} if kind.__doc__ else {}
    return schema | told | ({"properties": properties} if properties else {})


def _attribute(key: str, said: dict[str, str]) -> str | None:
    """The attribute that a key of the file stands for: of the same name, or with an underscore after it."""
    return next((name for name in (key, f"{key}_") if name in said), None)


def first_sentence(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def attribute_texts(docstring: str) -> dict[str, str]:
    """Attribute -> what a docstring says of it under "Attributes:", null for None; `low, high: text` is of both."""
    section = inspect.cleandoc(docstring).partition("Attributes:\n")[2]
    body = re.split(r"\n(?=\S)", section)[0]
    texts: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", f"\n{body}"):
        names, colon, text = entry.strip().partition(": ")
        if colon and re.fullmatch(r"\w+(, \w+)*", names):
            texts |= dict.fromkeys(names.split(", "), re.sub(r"\bNone\b", "null", " ".join(text.split())))
    return texts

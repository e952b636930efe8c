"""What a file's JSON schema says against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from memcontrol.schemas import FORMATS


def schema_problems(name: str, path: Path) -> list[str]:
    """One line for each problem that the schema of a format finds in a JSON or YAML file."""
    return content_problems(name, yaml.safe_load(path.read_text(encoding="utf-8")))


def content_problems(name: str, content: Any, *, closed: bool = False) -> list[str]:
    """One line for each problem that the schema of a format finds in plain values.

    Args:
        closed: whether a key that the schema does not describe is one.
    """
    schema = FORMATS[name].schema()
    found = Draft202012Validator(_closed(schema) if closed else schema).iter_errors(content)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def _closed(schema: Any) -> Any:
    """The schema with no other keys than those that it describes, wherever it describes any."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(part) for key, part in schema.items()}
    return made | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else made

"""What a file's JSON schema says against it."""

from __future__ import annotations

from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

from memcontrol.schemas import FORMATS


def schema_problems(name: str, path: Path) -> list[str]:
    """One line for each problem that the schema of a format finds in a JSON or YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = Draft202012Validator(FORMATS[name].schema()).iter_errors(content)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]

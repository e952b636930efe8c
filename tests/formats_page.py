"""The formats of docs/formats.md and the files of docs/schemas; `python tests/formats_page.py` writes them anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generated_part import GeneratedPart

from memcontrol.schemas import FORMATS, Format

DOCS = Path(__file__).parents[1] / "docs"
PART = GeneratedPart(DOCS / "formats.md", "tests/formats_page.py")
SCHEMAS = DOCS / "schemas"


def files() -> dict[Path, str]:
    """The file of every schema, and its text."""
    return {SCHEMAS / f"{name}.json": json.dumps(one.schema(), indent=1) + "\n" for name, one in FORMATS.items()}


def text() -> str:
    """Every format: what it is, where it lies, and a table of its keys; what several share stands with the first."""
    known: set[str] = set()
    return "\n\n".join(section(one, known) for one in FORMATS.values())


def section(one: Format, known: set[str]) -> str:
    """One format, and those of its parts that no earlier one had; they are added to `known`."""
    schema = one.schema()
    where = one.where[0].upper() + one.where[1:]
    parts = [f"## {one.name}", one.what, f"{where}. Schema: [`schemas/{one.name}.json`](schemas/{one.name}.json)."]
    parts += [f"Besides: {one.checked}"] if one.checked else []
    parts.append(keys(schema))
    new = {name: part for name, part in schema.get("$defs", {}).items() if name not in known and "properties" in part}
    known |= new.keys()
    for name, part in new.items():
        parts += [f"### {name}", part.get("description", ""), keys(part)]
    return "\n\n".join(filter(None, parts))


def keys(schema: Mapping[str, Any]) -> str:
    """A table of an object's keys."""
    lines = ["| key | value | unless given | meaning |", "|---|---|---|---|"]
    for key, value in schema["properties"].items():
        usual = "required" if key in schema.get("required", ()) else default(value)
        lines.append(f"| `{key}` | {kind(value)} | {usual} | {escaped(value.get('description', ''))} |")
    return "\n".join(lines)


def default(value: Mapping[str, Any]) -> str:
    """What holds where a key is left out; a section's own defaults stand with it."""
    if "default" not in value or isinstance(value["default"], dict):
        return ""
    return f"`{escaped(json.dumps(value['default'], ensure_ascii=False))}`"


def kind(value: Mapping[str, Any]) -> str:
    """A value's type in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(kind(one) for one in value[several]))
    if value.get("type") == "array":
        items = value.get("items")
        return f"list of {kind(items)}" if items else f"list of {len(value['prefixItems'])}"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {kind(value['additionalProperties'])}"
    return f"{value.get('type', 'anything')}{bounds(value)}"


def bounds(value: Mapping[str, Any]) -> str:
    """The limits of a number."""
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {value[key]:g}" for key, sign in words.items() if key in value]
    return f" {', '.join(told)}" if told else ""


def escaped(words: str) -> str:
    """Text in a table."""
    return words.replace("|", r"\|")


if __name__ == "__main__":
    PART.write(text())
    SCHEMAS.mkdir(exist_ok=True)
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")

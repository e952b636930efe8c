"""JSON and YAML of any origin, read as plain values: nothing in them is run, and aliases cannot blow them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 200_000
"""More values than these, aliases written out, are no settings; it takes a second to read them."""

MOST_DIGITS = 300
"""Whole numbers of more digits are no floating-point numbers."""


def load_json(content: str | bytes) -> Any:
    """The value that JSON text states.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds text that cannot be written as UTF-8.
    """
    try:
        found = json.loads(content, parse_int=_number)
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a character, which could not be printed
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def _number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def load_yaml(text: str) -> Any:
    """The value that YAML text states, of plain kinds alone; None where it is empty.

    Raises:
        ValueError: it is not YAML, is nested too deeply, names other kinds of values, or has aliases that stand for
            themselves or for too much.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        if _values(root, {}) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values, those that aliases stand for included")
        return loader.construct_document(root)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError, TypeError) as error:  # of tags on what is none of theirs
        raise ValueError(f"a value does not have the kind that its tag names ({error})") from error


def read_yaml(path: Path) -> Any:
    """The value in a YAML file in UTF-8.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML of plain values.
    """
    return load_yaml(path.read_text(encoding="utf-8"))


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has, aliases written out."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("an alias stands for what it is in")
        return known[id(node)]
    known[id(node)] = 0
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    count = 1
    for one in inner:
        count += sum(_values(part, known) for part in (one if isinstance(one, tuple) else (one,)))
    known[id(node)] = count
    return count

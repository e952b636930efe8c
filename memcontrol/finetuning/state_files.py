"""A training's state as files: arrays as safetensors, all else as JSON beside them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from memcontrol.plain_files import load_json

ARRAY = "$array"
"""Marks the place of an array in JSON; the array is in the safetensors file under the name of that place."""
NUMBER = "$number"
"""Marks a number that JSON does not have: an infinite one, or NaN."""


def state_names(name: str) -> tuple[str, str]:
    """The files of one state."""
    return f"{name}.safetensors", f"{name}.json"


def write_state(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write a state that `read_state` reads back.

    Args:
        content: text keys; tensors, NumPy arrays and numbers, or what JSON has, or lists and further mappings of such.

    Raises:
        OSError, SafetensorError: it cannot be written.
        TypeError: something else in it.
    """
    tensors_file, plain_file = state_names(name)
    arrays: dict[str, torch.Tensor] = {}
    plain = json.dumps(_plain(content, "", arrays), allow_nan=False)
    save_file(arrays, folder / tensors_file)
    (folder / plain_file).write_text(plain, encoding="utf-8")


def read_state(folder: Path, name: str) -> dict[str, Any]:
    """What `write_state` wrote, arrays on the CPU.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is not whole.
    """
    tensors_file, plain_file = state_names(name)
    arrays = load_file(folder / tensors_file)
    content = _whole(load_json((folder / plain_file).read_text(encoding="utf-8")), arrays)
    if not isinstance(content, dict):
        raise TypeError(f"{plain_file} is no object with keys")
    return content


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any, place: str, arrays: dict[str, torch.Tensor]) -> Any:
    """The value with each array moved to `arrays`, under the name of its place."""
    match value:
        case torch.Tensor():
            # A copy even on the CPU: views of one storage cannot be written.
            arrays[place] = value.detach().to("cpu", copy=True).contiguous()
            return {ARRAY: place, "numpy": False}
        case np.ndarray():
            arrays[place] = torch.from_numpy(value.copy())
            return {ARRAY: place, "numpy": True}
        case np.generic():
            return _plain(value.item(), place, arrays)
        case float() if not math.isfinite(value):
            return {NUMBER: str(value)}
        case Mapping():
            return {key: _plain(inner, f"{place}.{key}" if place else key, arrays) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner, f"{place}.{number}", arrays) for number, inner in enumerate(value)]
    return value


def _whole(value: Any, arrays: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if NUMBER in value:
            return float(value[NUMBER])
        if ARRAY in value:
            array = arrays[value[ARRAY]]
            return array.numpy() if value["numpy"] else array
        return {key: _whole(inner, arrays) for key, inner in value.items()}
    return [_whole(inner, arrays) for inner in value] if isinstance(value, list) else value

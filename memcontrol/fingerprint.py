"""Fingerprints: one stable hash for data, architecture, weights and configuration, the same on every machine."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

PREFIX = "sha256:"
_CHUNK_BYTES = 1 << 20


def fingerprint(*parts: object) -> str:
    """`sha256:<hex>` of the values of `parts`, in order.

    Accepts None, bool, int, float, str, bytes, NumPy scalars and arrays, pydantic models (as their JSON values),
    mappings (in any order), lists and tuples (alike), and any nesting of these. Each value is hashed with its type and
    length, so `("ab", "c")` and `("a", "bc")` differ, and so do 1, 1.0 and True.

    Raises:
        TypeError: a value of another type; a path is refused since it may mean its name (`str`) or its contents
            (`file_fingerprint`).
    """
    return PREFIX + _digest(list(parts)).hex()


def file_fingerprint(path: Path) -> str:
    """`sha256:<hex>` of a file's bytes, or of the names and bytes of all files under a folder.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if path.is_dir():
        files = sorted(inner for inner in path.rglob("*") if inner.is_file())
        return fingerprint([(inner.relative_to(path).as_posix(), file_fingerprint(inner)) for inner in files])
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
    return PREFIX + total.hexdigest()


def _digest(value: object) -> bytes:
    total = hashlib.sha256()
    for piece in _pieces(value):
        total.update(piece)
    return total.digest()


def _pieces(value: object) -> Iterator[bytes | memoryview]:
    """The type, then the content, of one value; containers give the digests of what they hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    match value:
        case None:
            yield b"none:"
        case bool():
            yield b"bool:" + str(value).encode()
        case int():
            yield b"int:" + str(value).encode()
        case float():
            yield b"float:" + struct.pack(">d", value)
        case str():
            yield b"str:" + value.encode()
        case bytes():
            yield b"bytes:" + value
        case np.ndarray():
            yield from _array_pieces(value)
        case list() | tuple():
            yield b"sequence:"
            yield from (_digest(item) for item in value)
        case Mapping():
            yield b"mapping:"
            yield from sorted(_digest(key) + _digest(item) for key, item in value.items())
        case Path():
            raise TypeError(f"fingerprint of path {value}: give str(path), or file_fingerprint(path) for its contents")
        case _:
            raise TypeError(f"fingerprint of a {type(value).__name__}: give numbers, text, arrays or containers")


def _array_pieces(array: NDArray[np.generic]) -> Iterator[bytes | memoryview]:
    if array.dtype.hasobject:
        raise TypeError("fingerprint of an array of Python objects: give an array of numbers or text")
    ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    yield f"array:{ordered.dtype.str}:{array.shape}:".encode()
    if ordered.nbytes:
        yield ordered.reshape(-1).view(np.uint8).data

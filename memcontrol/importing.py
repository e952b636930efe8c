"""Masks that the code of MemControl's authors saved, bare arrays of zeros and ones, as named masks."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from memcontrol.errors import MaskError, reason
from memcontrol.fingerprint import file_fingerprint
from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity, mask_key
from memcontrol.pipeline import load_unet
from memcontrol.space import load_space

SPACES: dict[int, tuple[str, ...]] = {13: ("paper-svdiff", "paper-difffit"), 16: ("paper-attention",)}
"""Number of bits on Stable Diffusion -> the authors' spaces of so many."""
VERSIONED = ("memcontrol", "torch", "diffusers")


def read_bits(file: Path) -> tuple[bool, ...]:
    """The bits in a `.npy` file, a one-dimensional array of booleans, or of numbers that are all 0 or 1.

    Raises:
        MaskError: no such file, not a `.npy` array, another shape, or other values.
    """
    try:
        # Mapped: it never unpickles, and a header that promises more than the file holds takes no memory.
        array = np.lib.format.open_memmap(file, mode="r")
    except OSError as error:
        raise MaskError(f"no mask array {file} ({reason(error)}): give an existing .npy file") from error
    except (ValueError, SyntaxError, TokenError) as error:  # the last two from a garbled header
        raise MaskError(f"{file} is not a .npy array of numbers ({reason(error)}): save it with numpy.save") from error
    if array.dtype.kind not in "biuf":
        raise MaskError(f"{file} holds values of type {array.dtype}: expected booleans, or numbers that are 0 or 1")
    if array.ndim != 1 or not array.size:
        raise MaskError(f"{file} has shape {array.shape}: expected one dimension, one value for each bit")
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise MaskError(
            f"{file} holds {wrong[0]:g} ({wrong.size} of {array.size} values are neither 0 nor 1): continuous masks "
            "are not imported; round it to zeros and ones first"
        )
    return tuple(map(bool, array))


def authors_space(count: int) -> str:
    """The authors' space that has so many bits on Stable Diffusion.

    Raises:
        MaskError: there is none, or more than one.
    """
    known = SPACES.get(count, ())
    if len(known) == 1:
        return known[0]
    said = f"fit {' and '.join(known)} alike" if known else "fit none of the authors' spaces (13 or 16 bits)"
    raise MaskError(f"{count} bits {said}: name the search space with --space")


def import_mask(
    file: str | Path,
    *,
    model: str,
    space: str | Path | None = None,
    learning_rate: float,
    steps: int | None = None,
) -> Mask:
    """The mask that an array of zeros and ones means for a model, its groups named and counted.

    Args:
        file: a `.npy` file, one value for each group that the space lets a mask switch, in the space's order.
        model: a shipped name, a pipeline folder or a hub id; its weights are read for the mask's identity.
        space: the search space that the bits belong to; by their number unless given.
        learning_rate: the peak rate that the mask was found with, which the array does not hold.
        steps: optimizer steps behind it; unknown unless given.

    Raises:
        MaskError: the file is no such array, its bits do not fit the space on this model, or a number is not above 0.
        SpaceError: no such space, or it does not fit the model.
        ModelError: the model cannot be loaded.
    """
    source = Path(file)
    if not 0 < learning_rate < math.inf:
        raise MaskError(f"learning rate {learning_rate:g}: expected a rate above 0, such as 1e-3")
    if steps is not None and steps < 1:
        raise MaskError(f"{steps} steps: expected a number of at least 1")
    bits = read_bits(source)
    chosen = load_space(space or authors_space(len(bits)))
    unet = load_unet(model)
    groups = parameter_groups(chosen, unet)
    switched = [group for group in groups if not group.always]
    _check_fit(source, bits, switched, space=chosen.name, model=model)
    return Mask.build(
        chosen,
        groups,
        [*bits, *[True] * (len(groups) - len(switched))],
        model=ModelIdentity.of(unet, model),
        unet_numel=sum(parameter.numel() for parameter in unet.parameters()),
        learning_rate=learning_rate,
        name=f"{chosen.name}-{mask_key(bits)}",
        provenance=_provenance(source, steps),
    )


def save_mask(mask: Mask, out: Path) -> Path:
    """Write the mask as `NAME.json` into the folder `out`; returns its path.

    Raises:
        MaskError: another mask is there under that name, or `out` cannot be written.
    """
    path = out / f"{mask.name}.json"
    if path.is_file() and Mask.from_pretrained(path) != mask:
        raise MaskError(f"{path} exists and differs: name another folder with --out")
    return mask.save(path)


def _check_fit(file: Path, bits: tuple[bool, ...], groups: list[ParameterGroup], *, space: str, model: str) -> None:
    if len(bits) != len(groups):
        raise MaskError(
            f"{file} holds {len(bits)} bits and {space} has {len(groups)} on {model}: name the model and the space "
            "that it was made for with --model and --space"
        )
    ranked = next((group.name for group in groups if group.alternatives), None)
    if ranked is not None:
        raise MaskError(f"{space} chooses among settings for {ranked}: zeros and ones do not say which; name another")


def _provenance(file: Path, steps: int | None) -> dict[str, Any]:
    counted = {} if steps is None else {"steps": steps}
    return {
        "imported": {"file": file.name, "sha256": file_fingerprint(file)},
        **counted,
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }

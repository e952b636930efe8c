"""Only what was tuned, as safetensors files that load onto the base model, and onto no other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcontrol.cache import Cache, default_cache_folder, whole_file
from memcontrol.errors import MaskError, ModelError, RunError, reason
from memcontrol.groups import architecture_fingerprint, weights_fingerprint
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.pipeline import SHIPPED

if TYPE_CHECKING:
    import torch

    from memcontrol.methods import Tuning

SCHEMA = "memcontrol/tuned@1"
PLAIN_FILE = "tuned.safetensors"
COMPACT_FILE = "tuned-compact.safetensors"
FORMS = ("plain", "compact")
KEYS = ("schema", "form", "mask", "base_model", "architecture", "weights", "frozen_sha256")
LISTED = 3


@dataclass(frozen=True)
class TunedFile:
    """A file of tuned tensors, read.

    Attributes:
        form: `plain` or `compact`.
        mask: which groups were tuned, as `public_mask` gives it.
        base_model: name of the base model.
        weights: `weights_fingerprint` of the base U-Net.
        tensors: by name, on the CPU.
    """

    path: Path
    form: str
    mask: Mask
    base_model: str
    weights: str
    tensors: Mapping[str, torch.Tensor]


def save_tuned(folder: Path, *, mask: Mask, tuning: Tuning, unet: torch.nn.Module, base: ModelIdentity) -> Path:
    """Write what was tuned into a folder, each file whole or not at all; returns the path of `tuned.safetensors`.

    `tuned.safetensors` holds the U-Net's own tensors of the layers that were tuned, folded, under the names that they
    have in its state dict: for every method, `unet.load_state_dict(load_file(path), strict=False)` loads it. It is as
    large as those layers. Where a method other than `full` was used, `tuned-compact.safetensors` holds the method's own
    numbers instead (shifts, factors, low-rank matrices), a few KB to MB, for `load_tuned` alone.

    The metadata of both says which mask and which base model they belong to. `frozen_sha256` is the hash of what was
    not tuned, so that a program without MemControl can tell another base model; a model card has these lines.

    Args:
        tuning: attached to `unet`, and not inside its `folded`.
        unet: the U-Net itself, without wrappers.
        base: the U-Net's identity before it was tuned.

    Raises:
        MaskError: the mask trains nothing.
        RunError: the folder cannot be written; what was there before is kept.
    """
    from memcontrol.methods import changed_names

    if not mask.trained:
        raise MaskError(f"mask {mask.name} trains nothing: there are no tuned tensors to save")
    with tuning.folded():
        state = unet.state_dict()
        plain = {name: _stored(state.pop(name)) for name in changed_names(unet, mask.trained)}
        frozen = tensors_sha256(state)
    facts = {
        "format": "pt",
        "schema": SCHEMA,
        "mask": json.dumps(json.loads(public_mask(mask).to_json()), ensure_ascii=False),
        "base_model": public_name(base.id),
        "architecture": base.architecture,
        "weights": base.weights,
        "frozen_sha256": frozen,
    }
    compact = folder / COMPACT_FILE
    if any(group.method != "full" for group in mask.trained):
        own = {name: _stored(parameter) for name, parameter in tuning.parameters.items()}
        _write(compact, own, facts | {"form": "compact"})
    else:
        compact.unlink(missing_ok=True)
    return _write(folder / PLAIN_FILE, plain, facts | {"form": "plain"})


def load_tuned(unet: torch.nn.Module, path: str | Path) -> Mask:
    """Put tuned tensors on the base model's U-Net, in place; returns the mask that they were tuned by.

    Plain and compact files load alike. A compact file with SV-DIFF decomposes the base weights, which takes a while on
    a large model and is kept in the cache.

    Args:
        unet: the base model's, in float32, on any device; nothing else may have been tuned or fused into it.
        path: a file of `save_tuned`, or a folder that holds `tuned.safetensors`.

    Raises:
        ModelError: no such file, a broken one, or a U-Net with other weights than those that were tuned.
        MaskError: a U-Net of another architecture.
    """
    from memcontrol.methods.applying import put_into, refuse_applied

    refuse_applied(unet)
    file = read_tuned(path)
    _check_base(unet, file)
    put_into(dict(unet.named_parameters()), _plain(unet, file))
    return file.mask


def read_tuned(path: str | Path) -> TunedFile:
    """A file of tuned tensors, without a U-Net.

    Raises:
        ModelError: no such file, one that is cut off or damaged, or none of this program's.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path) / PLAIN_FILE if Path(path).is_dir() else Path(path)
    try:
        with safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
    except FileNotFoundError as error:
        raise ModelError(f"no tuned tensors {file}: give a .safetensors file or its folder") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file} is not a whole safetensors file ({reason(error)}): copy it or save it again"
        ) from error
    missing = [key for key in KEYS if key not in facts]
    if missing or facts["schema"] != SCHEMA or facts["form"] not in FORMS:
        got = f"it lacks {', '.join(missing)}" if missing else f"schema {facts['schema']}, form {facts['form']}"
        raise ModelError(f"{file} holds no tuned tensors of schema {SCHEMA} ({got}): give a file that finetune saved")
    mask = Mask.from_json(facts["mask"], source=str(file))
    return TunedFile(file, facts["form"], mask, facts["base_model"], facts["weights"], tensors)


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal SHA-256 of names and bytes in the order of names: simple enough to be repeated without MemControl."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().flatten()
        total.update(name.encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def public_name(model: str) -> str:
    """What a released file calls a model: a shipped name or a hub id as it is, of a folder the last name alone."""
    path = Path(model)
    like_a_hub_id = model.count("/") == 1 and not path.is_absolute() and not model.startswith(".")
    if model in SHIPPED or (like_a_hub_id and not path.exists()):
        return model
    return path.resolve().name


def public_mask(mask: Mask) -> Mask:
    """The mask without what tells of the machine that it was found on: folders of models, data and weights."""
    provenance: dict[str, Any] = {key: value for key, value in mask.provenance.items() if key != "settings"}
    settings = mask.provenance.get("settings")
    if isinstance(settings, dict):
        # Where the images lie says nothing that `provenance.data` does not.
        provenance["settings"] = {key: value for key, value in settings.items() if key != "data"}
    return replace(mask, model=replace(mask.model, id=public_name(mask.model.id)), provenance=provenance)


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    # A copy even on the CPU: two names of one tensor, or views, cannot be written.
    return tensor.detach().to("cpu", copy=True).contiguous()


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with whole_file(path) as partial:
            save_file(dict(tensors), partial, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {path} ({reason(error)}): free space there, or choose another folder") from error
    return path


def _check_base(unet: torch.nn.Module, file: TunedFile) -> None:
    if architecture_fingerprint(unet) != file.mask.model.architecture:
        file.mask.check(unet)
    found = weights_fingerprint(unet)
    if found == file.weights:
        return
    import torch

    types = sorted({str(parameter.dtype) for parameter in unet.parameters()} - {str(torch.float32)})
    hint = f"it holds {', '.join(types)}: load it in float32, and convert it afterwards" if types else "load that model"
    raise ModelError(
        f"{file.path} was tuned on {file.base_model}, weights {_short(file.weights)}, and this "
        f"{type(unet).__name__} has weights {_short(found)}: {hint}, not yet tuned"
    )


def _plain(unet: torch.nn.Module, file: TunedFile) -> dict[str, torch.Tensor]:
    """The U-Net's own tensors that the file gives."""
    from memcontrol.methods import Resources, changed_names, tuned
    from memcontrol.methods.applying import flags_kept, plain_values, put_into

    names = changed_names(unet, file.mask.trained)
    if file.form == "plain":
        _check_tensors(file, {name: unet.get_parameter(name) for name in names})
        return dict(file.tensors)
    with ExitStack() as stack:
        stack.enter_context(flags_kept(unet))
        tuning = stack.enter_context(tuned(unet, file.mask.trained, Resources(Cache(default_cache_folder()))))
        _check_tensors(file, tuning.parameters)
        put_into(tuning.parameters, file.tensors)
        return plain_values(unet, tuning, names)


def _check_tensors(file: TunedFile, expected: Mapping[str, torch.Tensor]) -> None:
    for what, names in (("lacks", expected.keys() - file.tensors), ("has besides", file.tensors.keys() - expected)):
        if names:
            listed = ", ".join(sorted(names)[:LISTED])
            raise ModelError(f"{file.path} {what} {listed} ({len(names)} tensors): its mask and its tensors differ")
    for name, tensor in expected.items():
        if tensor.shape != file.tensors[name].shape:
            found = tuple(file.tensors[name].shape)
            raise ModelError(f"{file.path}: {name} has shape {found}, and {tuple(tensor.shape)} was expected")


def _short(sha256: str) -> str:
    return sha256[:19] + "..."

"""Local weight files: found, read without running code in them, checked against a network, and identified."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcontrol.errors import ModelError, first_line, listed
from memcontrol.fingerprint import fingerprint

if TYPE_CHECKING:
    import torch

SHOWN = 3
"""As many names of tensors stand in a message."""
UNREADABLE = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)
"""What `torch.load` raises on files that hold no tensors."""


def given_weights(name: str, weights: str | None, wanted: str) -> Path:
    """The local file or folder that the user gave for encoder `name`.

    Args:
        name: of the encoder.
        weights: the path given.
        wanted: what the path must hold, and where it comes from.
    Raises:
        ModelError: none was given, or there is none of that name.
    """
    if weights is None:
        raise ModelError(f"encoder {name} needs weights, got none: get {wanted} and give it with --weights {name}=PATH")
    path = Path(weights).expanduser()
    if not path.exists():
        raise ModelError(f"weights of encoder {name}: there is no {weights}, expected {wanted}: mend the path")
    return path


def read_state(path: Path, name: str, *, classes: Sequence[type] = ()) -> dict[str, torch.Tensor]:
    """The tensors in a weight file, by name; nothing that a pickle asks for is run.

    Args:
        path: a `.safetensors` file, a saved state dict, or a saved network made of `classes`.
        name: of the encoder, for messages.
        classes: of which a saved network may be made.
    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    import torch
    from safetensors import SafetensorError

    if path.is_dir():
        raise ModelError(f"weights of encoder {name}: {path} is a folder, expected a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(list(classes)):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (*UNREADABLE, SafetensorError) as error:
        raise ModelError(
            f"weights of encoder {name}: {path} cannot be read as tensors ({first_line(error)}): "
            "save the network's state dict with torch.save(network.state_dict(), PATH) and give that"
        ) from error
    if isinstance(loaded, torch.nn.Module):
        # Networks that old releases of torch saved lack this attribute, without which they cannot say their tensors.
        for module in loaded.modules():
            module.__dict__.setdefault("_non_persistent_buffers_set", set())
        loaded = loaded.state_dict()
    if not isinstance(loaded, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise ModelError(
            f"weights of encoder {name}: {path} holds a {type(loaded).__name__} of other things than tensors, "
            "expected a state dict: save network.state_dict()"
        )
    return dict(loaded)


def load_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor], *, name: str, source: str) -> None:
    """Load tensors into a network, all of them and no others.

    Args:
        network: is changed.
        state: by name.
        name: of the encoder, for messages.
        source: where the tensors come from, for messages.
    Raises:
        ModelError: missing or unexpected tensors, or tensors of another size; the network is then as it was.
    """
    own = network.state_dict()
    check_tensors(
        missing=[key for key in own if key not in state],
        unexpected=[key for key in state if key not in own],
        resized=[key for key in own if key in state and own[key].shape != state[key].shape],
        name=name,
        source=source,
    )
    network.load_state_dict(dict(state))


def check_tensors(
    *, missing: Sequence[str], unexpected: Sequence[str], resized: Sequence[str], name: str, source: str
) -> None:
    """Check that a network was given all of its tensors and no others.

    Raises:
        ModelError: it was not; the message counts and names them.
    """
    found = (("missing", missing), ("unexpected", unexpected), ("of another size", resized))
    parts = [f"{len(keys)} {what} ({listed(sorted(keys), SHOWN)})" for what, keys in found if keys]
    if parts:
        raise ModelError(
            f"weights of encoder {name}: {source} is of another architecture, with tensors {', '.join(parts)}: "
            f"give {name}'s own weights"
        )


def parameters_identity(network: torch.nn.Module, *settings: object) -> str:
    """`sha256:<hex>` of a network's tensors and of the settings that decide its features besides."""
    tensors = {key: tensor.detach().cpu().numpy() for key, tensor in network.state_dict().items()}
    return fingerprint(tensors, *settings)

"""Networks in transformers' folder format: a local folder or a hub id, checked against the architecture asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from memcontrol.data.images import Pixels
from memcontrol.encoders.weights import check_tensors
from memcontrol.errors import ModelError, first_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def pretrained_source(name: str, weights: str | None, default: str) -> str:
    """What to hand to `from_pretrained`: the folder or hub id given, else the default hub id.

    Raises:
        ModelError: neither an existing folder nor of the form `owner/name`.
    """
    if weights is None:
        return default
    path = Path(weights).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists() or path.is_absolute() or weights.startswith((".", "~")) or weights.count("/") != 1:
        raise ModelError(
            f"weights of encoder {name}: {weights} is neither a folder nor a hub id, expected one with config.json, "
            f"weights and preprocessor_config.json, such as a copy of {default}: give it with --weights {name}=PATH"
        )
    return weights


def load_pretrained(kind: Any, source: str, *, name: str, model_type: str) -> Any:
    """A network of class `kind` from a folder or hub id, in float32 and for evaluation.

    Args:
        kind: a class of transformers, or a child of one.
        source: as `pretrained_source` gives it.
        name: of the encoder, for messages.
        model_type: what config.json must call the architecture.
    Raises:
        ModelError: it cannot be read, or is of another architecture.
    """
    import torch
    from transformers import PreTrainedConfig

    config, _ = read(lambda: PreTrainedConfig.get_config_dict(source), name, source)
    found = config.get("model_type")
    if found is None:
        raise ModelError(f"weights of encoder {name}: {source} has no config.json: download the whole folder")
    if found != model_type:
        raise ModelError(
            f"weights of encoder {name}: {source} holds a network of type {found}, expected {model_type}: "
            f"give {name}'s own weights"
        )
    with _quiet():
        # Tensors of another size are left random unless counted, and raise a page of text unless ignored.
        network, loading = read(
            lambda: kind.from_pretrained(
                source, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            ),
            name,
            source,
        )
    # Unexpected tensors are a head for another task; without those that are missing, features would be random.
    check_tensors(
        missing=sorted(loading["missing_keys"]),
        unexpected=[],
        resized=sorted(entry if isinstance(entry, str) else entry[0] for entry in loading["mismatched_keys"]),
        name=name,
        source=source,
    )
    return network.eval()


def load_image_processor(source: str, name: str) -> Any:
    """The folder's own preprocessing of images, on PIL, which needs no torchvision.

    Raises:
        ModelError: there is none.
    """
    from transformers import AutoImageProcessor

    def load() -> Any:
        return AutoImageProcessor.from_pretrained(source, backend="pil")  # type: ignore[no-untyped-call]

    return read(load, name, source)


def load_tokenizer(kind: Any, source: str, *, name: str, vocabulary: int) -> Any:
    """A tokenizer of class `kind`, checked against the size of the text network's `vocabulary`.

    Raises:
        ModelError: it cannot be read, or belongs to another vocabulary. Where the vocabulary's file is missing,
            transformers makes one without words, to which all captions are alike.
    """
    tokenizer = read(lambda: kind.from_pretrained(source), name, source)
    if not 0.9 * vocabulary <= len(tokenizer) <= vocabulary:
        raise ModelError(
            f"weights of encoder {name}: the tokenizer in {source} knows {len(tokenizer)} tokens, expected "
            f"{vocabulary}: put its files in the folder (tokenizer.json, vocab.txt, or vocab.json and merges.txt)"
        )
    return tokenizer


def processed(processor: Any, pixels: Pixels, device: str) -> torch.Tensor:
    """`(N, H, W, 3)` uint8 -> what the network reads, `(N, 3, h, w)` float32."""
    inputs = processor(images=list(np.asarray(pixels)), return_tensors="pt", input_data_format="channels_last")
    tensor: torch.Tensor = inputs["pixel_values"]
    return tensor.to(device)


def read(load: Callable[[], T], name: str, source: str) -> T:
    """What `load` gives.

    Raises:
        ModelError: it fails, which says how to give the weights.
    """
    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        local = Path(source).is_dir()
        reason = first_line(error) if local else "it is not in the local cache, and cannot be downloaded"
        raise ModelError(
            f"weights of encoder {name}: {source} cannot be loaded ({reason}): "
            f"download the whole folder where there is a network, and give it with --weights {name}=PATH"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers without its report of loaded tensors, since `load_pretrained` makes its own, and progress bars.

    The bars stay off, as the loading of pipelines leaves them.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)

"""LoRA: tune low-rank changes of chosen weights through peft, and save them as peft and diffusers load them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING, Any

import torch

from memcontrol.errors import ModelError, SpaceError
from memcontrol.fingerprint import PREFIX, fingerprint
from memcontrol.methods.attachment import Resources, Settings, Tunable, owner, replaced

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "default"
FACTORS = ("lora_A", "lora_B")
DECISIVE = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
"""What diffusers needs to know of a configuration; it refuses a file that has a key its peft does not know."""


@dataclass(frozen=True)
class LoRAAttachment:
    """peft's layers, in the place of the chosen ones.

    Attributes:
        layers: peft's layer around each chosen one, by the chosen layer's dotted name.
        config: ranks and alphas, as peft states them.
    """

    unet: torch.nn.Module
    layers: Mapping[str, Any]
    config: LoraConfig

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Both factors of every layer; float32 at least, whatever the base weights are."""
        factors = [(name, factor) for name in self.layers for factor in FACTORS]
        return {f"{name}.weight.{factor}": self._factor(name, factor) for name, factor in factors}

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, the chosen layers themselves are back, with the low-rank changes added to their weights."""
        with ExitStack() as stack:
            stack.enter_context(_placed(self.unet, {name: layer.base_layer for name, layer in self.layers.items()}))
            for layer in self.layers.values():
                stack.enter_context(replaced(layer.base_layer, {"weight": _plain_weight(layer)}))
            yield

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The weights with their low-rank changes."""
        return {f"{name}.weight": _plain_weight(layer) for name, layer in self.layers.items()}

    def save(self, folder: Path) -> None:
        """Write the low-rank changes alone, for the base model.

        `adapter_config.json` and `adapter_model.safetensors` are for `peft.PeftModel.from_pretrained`; a
        text-conditional U-Net has `pytorch_lora_weights.safetensors` besides, for a pipeline's `load_lora_weights`.
        """
        from diffusers import StableDiffusionPipeline, UNet2DConditionModel
        from peft.utils import SAFETENSORS_WEIGHTS_NAME
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{name}.{factor}.weight": self._factor(name, factor).detach().cpu().contiguous()
            for name in self.layers
            for factor in FACTORS
        }
        config, kind = copy(self.config), type(self.unet)
        config.inference_mode = True
        base = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
        config.save_pretrained(str(folder), auto_mapping_dict=base)
        prefixed = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
        save_file(prefixed, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        if isinstance(self.unet, UNet2DConditionModel):
            StableDiffusionPipeline.save_lora_weights(
                folder,
                unet_lora_layers=tensors,
                unet_lora_adapter_metadata={key: getattr(config, key) for key in DECISIVE},
            )

    def _factor(self, name: str, factor: str) -> torch.nn.Parameter:
        weight: torch.nn.Parameter = getattr(self.layers[name], factor)[ADAPTER].weight
        return weight


@dataclass(frozen=True)
class LoRA:
    """A weight W becomes W + alpha / rank * B A, with A random and B zero at the start.

    `rank` and `alpha` are the settings. A rank above what the layer's sizes allow is redundant and works, as in peft.

    Source: Hu et al. 2021 (arXiv 2106.09685), eq. 3.
    """

    def numel(self, unet: torch.nn.Module, parameter: str, settings: Settings) -> int:
        """Rank times (inputs + outputs); a convolution's inputs count once for each place of its kernel.

        Raises:
            SpaceError: not the weight of a linear layer or of a convolution that peft's layers can follow.
        """
        weight = _layer(unet, parameter).get_parameter("weight")
        return int(settings["rank"]) * (len(weight) + math.prod(weight.shape[1:]))

    def changes(self, unet: torch.nn.Module, parameter: str) -> tuple[str, ...]:
        """The parameter itself."""
        return (parameter,)

    @contextmanager
    def attached(
        self, unet: torch.nn.Module, tunables: Sequence[Tunable], resources: Resources
    ) -> Iterator[LoRAAttachment]:
        """Put peft's layers around the chosen ones; on exit nothing of it is left.

        Raises:
            SpaceError: as `numel`.
            ModelError: the U-Net carries an adapter already.
        """
        if hasattr(unet, "peft_config"):
            raise ModelError("this U-Net carries an adapter already: fuse and unload it, or load the base model anew")
        chosen = [(parameter, tunable.settings) for tunable in tunables for parameter in tunable.parameters]
        layers = {parameter.rpartition(".")[0]: _layer(unet, parameter) for parameter, _ in chosen}
        with _placed(unet, layers):  # as they are; this puts them back
            yield _injected(unet, dict(zip(layers, [settings for _, settings in chosen], strict=True)), resources.seed)


def _layer(unet: torch.nn.Module, parameter: str) -> torch.nn.Module:
    module, leaf = owner(unet, parameter)
    found = f"the {leaf} of a layer of type {type(module).__name__}"
    if leaf == "weight" and isinstance(module, torch.nn.Linear):
        return module
    if leaf == "weight" and isinstance(module, torch.nn.Conv2d):
        # peft's convolutions have neither of these, and cannot be folded where there are groups.
        if (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros"):
            return module
        found += f" (groups {module.groups}, dilation {module.dilation}, padding {module.padding_mode})"
    raise SpaceError(
        f"lora fits the weights of Linear and plain Conv2d layers, and {parameter} is {found}: narrow a select rule, "
        "such as to *.to_q.weight, or give that part another method"
    )


@contextmanager
def _placed(unet: torch.nn.Module, modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
    """Inside, the U-Net has these modules at those names; on exit those that it had before."""
    kept = {name: unet.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            unet.set_submodule(name, module)
        yield
    finally:
        for name, module in kept.items():
            unet.set_submodule(name, module)


def _injected(unet: torch.nn.Module, settings: Mapping[str, Settings], seed: int) -> LoRAAttachment:
    from peft.functional import cast_adapter_dtype, inject_adapter_in_model

    config = _config(settings)
    flags = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
    try:
        with torch.random.fork_rng(devices=[]):  # for numbers that `_start` replaces
            inject_adapter_in_model(config, unet, ADAPTER)
    finally:
        vars(unet).pop("peft_config", None)
        for parameter, flag in flags:  # peft freezes what other methods train
            parameter.requires_grad_(flag)
    cast_adapter_dtype(unet, ADAPTER)
    layers: dict[str, Any] = {name: unet.get_submodule(name) for name in settings}
    for name, layer in layers.items():
        _start(layer.lora_A[ADAPTER].weight, seed, name)
    return LoRAAttachment(unet, layers, config)


def _config(settings: Mapping[str, Settings]) -> LoraConfig:
    """Ranks and alphas for peft, names as regular expressions: a plain name would match the ends of other names."""
    from peft import LoraConfig

    ranks = {name: int(setting["rank"]) for name, setting in settings.items()}
    alphas = {name: setting["alpha"] for name, setting in settings.items()}
    rank, alpha = mode(ranks.values()), mode(alphas.values())
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft divides it by the rank, whole or not
        rank_pattern={f"^{re.escape(name)}": other for name, other in ranks.items() if other != rank},
        alpha_pattern={f"^{re.escape(name)}": other for name, other in alphas.items() if other != alpha},
        target_modules="|".join(map(re.escape, settings)),
    )


@torch.no_grad()
def _start(weight: torch.nn.Parameter, seed: int, name: str) -> None:
    """Draw as peft does, but as a pure function of seed, layer and rank: alike in all candidates of a run."""
    key = fingerprint("lora", seed, name, len(weight)).removeprefix(PREFIX)
    generator = torch.Generator().manual_seed(int(key[:15], 16))
    start = torch.empty(weight.shape)
    weight.copy_(torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator))


def _plain_weight(layer: Any) -> torch.Tensor:
    base: torch.Tensor = layer.base_layer.weight
    change: torch.Tensor = layer.get_delta_weight(ADAPTER)
    return (base + change).to(base.dtype)

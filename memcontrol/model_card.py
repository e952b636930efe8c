"""The model card of a released model: README.md in its folder, as Hugging Face reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memcontrol.errors import RunError, reason
from memcontrol.mask import Mask
from memcontrol.mask_records import MaskedGroup
from memcontrol.pipeline import SHIPPED
from memcontrol.run import write_atomically
from memcontrol.score import Score
from memcontrol.tuned_tensors import COMPACT_FILE, PLAIN_FILE, public_name

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

FILE_NAME = "README.md"
TEMPLATE = Path(__file__).parent / "assets" / "model_card.md.jinja"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LORA_FILE = Path("lora") / "pytorch_lora_weights.safetensors"
PIPELINE_FILE = "model_index.json"

_PIPELINE = """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(".")"""

_PLAIN = f"""import hashlib

import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

{{base}}
pipeline = DiffusionPipeline.from_pretrained(base)
weights = pipeline.unet.state_dict()
with safe_open("{PLAIN_FILE}", "pt") as file:
    tuned, expected = {{{{name: file.get_tensor(name) for name in file.keys()}}}}, file.metadata()["frozen_sha256"]
found = hashlib.sha256()
for name in sorted(weights.keys() - tuned.keys()):
    found.update(name.encode() + weights[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
if found.hexdigest() != expected or not tuned.keys() <= weights.keys():
    raise ValueError("{PLAIN_FILE} belongs to another base model: see its metadata")
pipeline.unet.load_state_dict(tuned, strict=False)"""

_COMPACT = """import memcontrol
from diffusers import DiffusionPipeline

{base}
pipeline = DiffusionPipeline.from_pretrained(base)
memcontrol.load_tuned(pipeline.unet, "{file}")"""

_LORA = """from diffusers import StableDiffusionPipeline

{base}
pipeline = StableDiffusionPipeline.from_pretrained(base)
pipeline.load_lora_weights("lora")"""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says besides the mask itself.

    Attributes:
        base_model: id of the model that was tuned; of a local folder the card gives the last name alone.
        data_name, data_n, data_sha256: of the training images: a short name, how many, and their fingerprint.
        steps: optimizer steps that were taken.
        learning_rate: its peak.
        batch: images in a step.
        base_weights: fingerprint of the base U-Net's weights; the mask's own where that is the model, unless given.
        mitigations: under which was trained, as `load_mitigation` reads them.
        monitored: scores of this very model, measured during training.
        monitored_step: when they were last measured.
        notes: more sentences for the card, fit to be published, such as DP-SGD's epsilon.
    """

    base_model: str
    data_name: str
    data_n: int
    data_sha256: str
    steps: int
    learning_rate: float
    seed: int
    batch: int | None = None
    base_weights: str | None = None
    mitigations: tuple[str, ...] = ()
    monitored: Mapping[str, Score] = field(default_factory=dict)
    monitored_step: int | None = None
    notes: tuple[str, ...] = ()


def write_card(folder: Path, *, mask: Mask, facts: CardFacts) -> Path:
    """Write README.md into a folder in which everything else is saved already, since the card says how to load that.

    The card names no caption, no image and no folder of this machine.

    Raises:
        RunError: the folder cannot be written.
    """
    path = folder / FILE_NAME
    try:
        write_atomically(path, str(model_card(folder, mask=mask, facts=facts)))
    except OSError as error:
        raise RunError(f"cannot write {path} ({reason(error)}): free space there, or choose another folder") from error
    return path


def model_card(folder: Path, *, mask: Mask, facts: CardFacts) -> ModelCard:
    """The card of what is saved in `folder`."""
    from huggingface_hub import ModelCard, ModelCardData

    base, conditional = public_name(facts.base_model), mask.model.class_name == "UNet2DConditionModel"
    task = "text-to-image" if conditional else "unconditional-image-generation"
    tags = ["memcontrol", "diffusers", *sorted({group.method for group in mask.trained})]
    card: ModelCard = ModelCard.from_template(
        ModelCardData(
            library_name="diffusers",
            pipeline_tag=task,
            # The hub takes no other names there.
            base_model=base if HUB_ID.fullmatch(base) else None,
            tags=tags + (["lora"] if (folder / LORA_FILE).is_file() and "lora" not in tags else []),
        ),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=_line(mask.name),
        base=_line(base),
        data=_line(Path(facts.data_name).name),
        facts=facts,
        numel=f"{mask.trainable.numel:,}",
        percent=f"{mask.trainable.percent:.3g}",
        groups=[_group(group) for group in mask.trained],
        frozen=_frozen(mask),
        weights=facts.base_weights or (mask.model.weights if facts.base_model == mask.model.id else None),
        notes=[_line(note) for note in (*_notes(mask, facts), *facts.notes)],
        tables=list(_tables(mask, facts)),
        snippets=list(_snippets(folder, _base_line(facts.base_model, base), methods=set(tags))),
    )
    return card


def _group(group: MaskedGroup) -> dict[str, str]:
    settings = ", ".join(f"{key} {value:g}" for key, value in group.settings.items())
    return {
        "name": _line(group.name),
        "method": group.method,
        "settings": f" ({settings})" if settings else "",
        "numel": f"{group.numel:,}",
    }


def _frozen(mask: Mask) -> str:
    off = [_line(group.name) for group in mask.groups if not group.on]
    return f"Frozen: {', '.join(off)}, and all that no group names." if off else "No group is frozen."


def _notes(mask: Mask, facts: CardFacts) -> Iterator[str]:
    data = mask.provenance.get("data")
    found = data.get("sha256") if isinstance(data, dict) else None
    if found and found != facts.data_sha256:
        yield "The mask was found on other images than those that this model was trained on."
    sampling = [text for text in facts.mitigations if text.startswith("inference-")]
    if sampling:
        yield f"{', '.join(sampling)} works while sampling, and is no part of the saved weights."


def _tables(mask: Mask, facts: CardFacts) -> Iterator[dict[str, Any]]:
    if facts.monitored:
        step = f" at step {facts.monitored_step}" if facts.monitored_step is not None else ""
        yield _table(f"This model itself, while it was trained{step}:", _contents(facts.monitored))
    if mask.confirmed is not None and mask.confirmed.scores:
        seeds = ", ".join(map(str, mask.confirmed.seeds))
        said = f"The mask, trained again with fresh seeds ({seeds}) and scored on images that the search never used:"
        yield _table(said, mask.confirmed.scores)
    if mask.scores:
        steps = mask.provenance.get("steps")
        after = f" after {steps} steps" if isinstance(steps, int) else ""
        yield _table(
            f"The mask, as the search measured it on a training of its own{after} (the best of many noisy scores look "
            "better than they are):",
            mask.scores,
        )


def _contents(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.to_json() for name, score in scores.items()}


def _table(said: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for name, score in scores.items():
        low, high = score["low"], score["high"]
        interval = "not known" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        rows.append(
            {"name": _line(name), "value": f"{score['value']:.4g}", "interval": interval}
            | {key: score[key] for key in ("n", "better")}
        )
    return {"said": said, "rows": rows}


def _base_line(model: str, base: str) -> str:
    """The line of a snippet that says where the base model is."""
    if model in SHIPPED:
        return f'from memcontrol.pipeline import model_folder\n\nbase = model_folder("{model}")'
    if HUB_ID.fullmatch(base):
        return f"base = {json.dumps(base)}"
    return f"base = {json.dumps(f'path/to/{base}')}  # the folder of the base model"


def _snippets(folder: Path, base: str, *, methods: set[str]) -> Iterator[dict[str, str]]:
    if (folder / PIPELINE_FILE).is_file():
        yield {"said": "The whole pipeline, by diffusers:", "code": _PIPELINE}
    if (folder / PLAIN_FILE).is_file():
        said = (
            f"The tuned tensors alone (`{PLAIN_FILE}`, {_size(folder / PLAIN_FILE)}) on the base model, by diffusers:"
        )
        yield {"said": said, "code": _PLAIN.format(base=base)}
        file = COMPACT_FILE if (folder / COMPACT_FILE).is_file() else PLAIN_FILE
        said = f"The same by MemControl, from `{file}` ({_size(folder / file)}), which refuses any other base model:"
        yield {"said": said, "code": _COMPACT.format(base=base, file=file)}
    if (folder / LORA_FILE).is_file():
        code = _LORA.format(base=base)
        rest = "" if methods <= {"memcontrol", "diffusers", "lora"} else ", without what other methods tuned"
        yield {"said": f"The low-rank changes alone{rest}, on the base model, which nothing checks here:", "code": code}


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} KB"


def _line(text: str) -> str:
    """Text on one line that no table of Markdown breaks at."""
    return " ".join(text.split()).replace("|", "\\|")

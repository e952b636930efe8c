"""A finished search with whole masks, pictures and names that try to be more than text; no model is needed."""

from pathlib import Path
from typing import Any

import yaml
from finished_run import COLUMNS, FD, GAP, front_content, member, score, scores, trial_row
from PIL import Image

from memcontrol.run import RunFolder

SCRIPT = '<script>window.stolen = 1</script><img src=x onerror="window.stolen = 2">'
GROUPS = {
    "down.0.attention": ["down_blocks.0.attentions.0.to_q.weight", "down_blocks.0.attentions.0.to_k.weight"],
    "down.norms": ["down_blocks.0.norm.weight", "down_blocks.1.norm.weight"],
    "mid.attention": ["mid_block.attentions.0.to_q.weight"],
    "up.1.attention": ["up_blocks.1.attentions.0.to_q.weight"],
    "ends": ["conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"],
}
MEMBERS = ((3, 11.0, 0.02, "01101"), (1, 14.0, 0.01, "10010"), (7, 30.0, 0.001, "00001"))
OTHERS = ((4, 40.0, 0.08, "11111"), (6, 33.0, 0.03, "11000"))


def mask_content(trial: int, fd: float, gap: float, bits: str) -> dict[str, Any]:
    """A mask file's content, of five groups on a U-Net of two levels."""
    groups = [
        {"name": name, "method": "full", "on": bit == "1", "parameters": parameters, "numel": 100}
        for (name, parameters), bit in zip(GROUPS.items(), bits, strict=True)
    ]
    return {
        "schema": "memcontrol/mask@1",
        "name": f"brain-{trial}",
        "model": {"id": "tiny", "weights": "sha256:0123456789abcdef"},
        "space": {"name": "stage-kinds"},
        "groups": groups,
        "trainable": {"numel": 100 * bits.count("1"), "percent": 20.0 * bits.count("1")},
        "scores": scores(fd, gap),
        "provenance": {"data": {"name": SCRIPT, "n": 32, "sha256": "sha256:fedcba9876543210"}, "steps": 300},
    }


def confirmed(front: dict[str, Any]) -> dict[str, Any]:
    """The front with its first member confirmed on two seeds, dominated by full fine-tuning."""
    again = {
        name: score(value, half) | {"values": [value, value], "n": 2}
        for name, value, half in ((FD, 12.5, 1.0), (GAP, 0.03, 0.01))
    }
    names = [{"name": FD, "better": "lower", "objective": True}, {"name": GAP, "better": "lower", "objective": True}]
    row = {"name": "full", "kind": "full", "trial": None, "seeds": [101, 102], "scores": again}
    row |= {"learning_rate": 3e-4, "steps": 300}
    front["front"][0] |= {
        "confirmed": {"seeds": [101, 102], "scores": again},
        "dominated_after_confirmation": True,
        "dominated_by": ["full"],
    }
    held_out = {"set": "confirmation", "fidelity": 512, "copying": 512}
    return front | {"confirmation": {"seeds": [101, 102], "held_out": held_out, "scores": names, "rows": [row]}}


def searched(path: Path) -> RunFolder:
    """Five completed trials, three of them on the front, a checkpoint on it, and one that failed."""
    folder = RunFolder(path)
    folder.prepare()
    members = [
        member(*one[:3], bits=one[3]) | {"dominated_after_confirmation": None, "dominated_by": []} for one in MEMBERS
    ]
    checkpoint = member(6, 20.0, 0.005, bits="11000") | {"steps": 150, "of": 300, "mask": "masks/trial-006-at-150.json"}
    front = confirmed(front_content([*members, checkpoint]))
    rows = [trial_row(*one) for one in (*MEMBERS, *OTHERS)] + [trial_row(5, 0.0, 0.0, state="fail") | {"error": SCRIPT}]
    folder.write_trials(COLUMNS, rows)
    folder.write_json(folder.front, front)
    for number, *content in (*MEMBERS, *OTHERS):
        folder.write_json(folder.mask(number), mask_content(number, *content))
        folder.write_picture(folder.samples(number), Image.new("RGB", (8 * 18 - 2, 34), (10 * number, 90, 40)))
    folder.write_json(folder.mask(6, 150), mask_content(6, 20.0, 0.005, "11000"))
    folder.config.write_text(yaml.safe_dump({"data": {"source": SCRIPT}, "model": "tiny", "space": "stage-kinds"}))
    return folder

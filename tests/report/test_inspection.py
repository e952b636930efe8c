"""`inspect` shows each group's true size and share, in print and in JSON."""

import io
import json

import pytest
from rich.console import Console
from torch import nn

from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.report.inspection import inspection_json, inspection_table, percent_text
from memcontrol.space import SearchSpace

SPACE = SearchSpace.model_validate(
    {
        "schema": "memcontrol/search-space@1",
        "name": "mine",
        "learning_rate": {"low": 3e-4, "high": 1e-2},
        "parts": [
            {"select": ["down_blocks.*"], "group_by": "stage"},
            {"select": ["*norm*"], "name": "norms", "always": True},
        ],
    }
)


@pytest.fixture
def unet() -> nn.Module:
    blocks = nn.ModuleList([nn.Linear(30, 20, bias=False), nn.Linear(10, 20)])
    return nn.ModuleDict({"down_blocks": blocks, "norm": nn.LayerNorm(4), "conv_out": nn.Linear(100, 100)})


def numel(unet: nn.Module) -> int:
    return sum(parameter.numel() for parameter in unet.parameters())


def shown(groups: tuple[ParameterGroup, ...], unet: nn.Module) -> list[list[str]]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(inspection_table(groups, numel(unet), model_id="folder[x]", space=SPACE))
    return [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines() if "│" in line
    ]


def test_table_rows_and_total(unet: nn.Module) -> None:
    assert shown(parameter_groups(SPACE, unet), unet) == [
        ["0", "down.0", "full", "1", "600", "5.5"],
        ["1", "down.1", "full", "2", "220", "2.0"],
        ["always", "norms", "full", "2", "8", "0.073"],
        ["", "all groups", "", "5", "828", "7.6"],
    ]


def test_json_is_plain_and_complete(unet: nn.Module) -> None:
    groups = parameter_groups(SPACE, unet)
    content = inspection_json(groups, numel(unet), model_id="tiny", space=SPACE)
    assert json.loads(json.dumps(content)) == content
    assert content["model"] == {"id": "tiny", "numel": numel(unet)}
    assert content["bits"] == 2
    assert content["trainable"] == {"numel": 828, "percent": pytest.approx(100 * 828 / numel(unet))}
    assert [group["bit"] for group in content["groups"]] == [0, 1, None]
    assert [group["parameters"] for group in content["groups"]] == [list(group.parameters) for group in groups]
    assert sum(group["percent"] for group in content["groups"]) == pytest.approx(content["trainable"]["percent"])
    assert SearchSpace.model_validate(content["space"]["content"]) == SPACE


@pytest.mark.parametrize(("percent", "text"), [(100.0, "100.0"), (31.09, "31.1"), (0.0194, "0.019"), (0.0, "0.0")])
def test_small_percentages_keep_two_digits(percent: float, text: str) -> None:
    assert percent_text(percent) == text

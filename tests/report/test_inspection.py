"""`inspect` shows each group's true size, share and levels, in print and in JSON."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from torch import nn

from memcontrol.groups import ParameterGroup, parameter_groups
from memcontrol.report.inspection import inspection_json, inspection_table, mask_count, percent_text
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
    assert (content["bits"], content["masks"]) == (2, 4), "a group that always trains has no bit"
    assert content["always"] == {"numel": 8, "percent": pytest.approx(100 * 8 / numel(unet))}
    assert content["trainable"] == {"numel": 828, "percent": pytest.approx(100 * 828 / numel(unet))}
    assert [group["bit"] for group in content["groups"]] == [0, 1, None]
    assert [group["parameters"] for group in content["groups"]] == [list(group.parameters) for group in groups]
    assert sum(group["percent"] for group in content["groups"]) == pytest.approx(content["trainable"]["percent"])
    assert SearchSpace.model_validate(content["space"]["content"]) == SPACE


@pytest.fixture
def ranked(unet: nn.Module) -> tuple[ParameterGroup, ...]:
    """The first group may train at rank 2 or at rank 8; the second is a plain switch, the third always trains."""
    first, *others = parameter_groups(SPACE, unet)
    low, high = (
        replace(first, method="lora", numel=50 * rank, settings={"rank": rank, "alpha": 4.0}) for rank in (2, 8)
    )
    return (replace(low, alternatives=(high,)), *others)


def test_every_level_of_a_group_has_a_line(ranked: tuple[ParameterGroup, ...], unet: nn.Module) -> None:
    assert shown(ranked, unet) == [
        ["0", "down.0", "lora", "1: rank 2, alpha 4", "1", "100", "0.92"],
        ["", "", "", "2: rank 8, alpha 4", "", "400", "3.7"],
        ["1", "down.1", "full", "1", "2", "220", "2.0"],
        ["always", "norms", "full", "1", "2", "8", "0.073"],
        ["", "all groups, at most", "", "", "5", "628", "5.7"],
    ]


def test_json_has_the_levels_above_zero(ranked: tuple[ParameterGroup, ...], unet: nn.Module) -> None:
    content = inspection_json(ranked, numel(unet), model_id="tiny", space=SPACE)
    assert json.loads(json.dumps(content)) == content
    assert [[level["numel"] for level in group["levels"]] for group in content["groups"]] == [[100, 400], [220], [8]]
    assert [level["settings"]["rank"] for level in content["groups"][0]["levels"]] == [2, 8]
    assert content["groups"][0]["percent"] == pytest.approx(100 * 400 / numel(unet))
    assert content["trainable"]["numel"] == 628


def switches(*levels: int) -> list[ParameterGroup]:
    """A group for each number of levels above zero."""
    plain = ParameterGroup("group", "full", ("name",), 1)
    return [replace(plain, alternatives=(plain,) * (count - 1)) for count in levels]


@pytest.mark.parametrize(
    ("groups", "masks", "text"),
    [
        (switches(1), 2, "1 bit, 2 masks"),
        (switches(1, 1, 1), 8, "3 bits, 8 masks"),
        (switches(2), 3, "1 switch, 3 masks"),
        (switches(1, 2, 3), 2 * 3 * 4, "3 switches, 24 masks"),
        (switches(*[1] * 40), 2**40, "40 bits, 2^40 masks"),
        (switches(*[2] * 1000), 3**1000, "1000 switches, some 10^477 masks"),
        ([replace(group, always=True) for group in switches(1)], 1, "0 bits, 1 mask"),
    ],
)
def test_the_number_of_masks_is_the_product_of_levels(groups: list[ParameterGroup], masks: int, text: str) -> None:
    assert mask_count([*groups, ParameterGroup("rest", "full", ("other",), 5, always=True)]) == masks
    assert inspection_json(groups, 100, model_id="tiny", space=SPACE)["masks"] == masks
    caption = inspection_table(groups, 100, model_id="tiny", space=SPACE).caption
    assert str(caption) == f"{text}, learning rate 0.0003 to 0.01"


@pytest.mark.parametrize(("percent", "text"), [(100.0, "100.0"), (31.09, "31.1"), (0.0194, "0.019"), (0.0, "0.0")])
def test_small_percentages_keep_two_digits(percent: float, text: str) -> None:
    assert percent_text(percent) == text

"""Every group of a mask is drawn where its parameters lie, lit where it trains, on any U-Net."""

from typing import Any

import pytest
from unet_configs import unet_of

from memcontrol.groups import parameter_groups
from memcontrol.report.unet_drawing import Drawing, place_of, unet_drawing
from memcontrol.space import load_space


def groups_of(space: str, model: str) -> list[dict[str, Any]]:
    """A mask's groups with every other one on."""
    found = parameter_groups(load_space(space), unet_of(model))
    return [
        {"name": g.name, "method": g.method, "on": i % 2 == 0, "parameters": list(g.parameters), "numel": g.numel}
        for i, g in enumerate(found)
    ]


def levels(drawing: Drawing) -> int:
    return sum(stage.name.startswith("down.") for stage in drawing.stages)


@pytest.mark.parametrize(
    ("space", "model", "count"),
    [
        ("stage-kinds", "tiny", 2),
        ("stage-kinds", "tiny-sd", 4),
        ("paper-svdiff", "SD 1.5", 4),
        ("paper-attention", "SD 1.5", 4),
        ("attention-matrices", "SD 1.5", 4),
        ("stage-kinds", "SDXL", 3),
        ("stage-kinds", "unconditional", 3),
    ],
)
def test_lit_cells_are_the_groups_that_are_on(space: str, model: str, count: int) -> None:
    groups = groups_of(space, model)
    drawing = unet_drawing(groups)
    cells = [cell for stage in drawing.stages for cell in stage.cells]
    assert {cell.group for cell in cells if cell.on} == {group["name"] for group in groups if group["on"]}
    assert {cell.group for cell in cells if not cell.on} == {group["name"] for group in groups if not group["on"]}
    assert levels(drawing) == count
    for stage in drawing.stages:
        assert stage.y + stage.height <= drawing.height
        for cell in stage.cells:
            assert stage.x < cell.x < cell.x + cell.width < stage.x + stage.width
            assert stage.y < cell.y < cell.y + cell.height <= stage.y + stage.height


def test_a_group_over_several_stages_is_drawn_in_each() -> None:
    parameters = ["down_blocks.0.norm.weight", "down_blocks.1.norm.weight", "mid_block.norm.weight"]
    drawing = unet_drawing([{"name": "norms", "method": "full", "on": True, "parameters": parameters, "numel": 3}])
    held = {stage.name for stage in drawing.stages if stage.cells}
    assert held == {"down.0", "down.1", "mid"}


def test_skip_connections_join_stages_of_equal_height() -> None:
    drawing = unet_drawing(groups_of("stage-kinds", "tiny"))
    places = {stage.name: stage.y for stage in drawing.stages}
    assert places["down.0"] == places["up.1"] < places["down.1"] == places["up.0"] < places["mid"]
    assert len(drawing.skips) == 2


def test_parameters_outside_the_blocks_have_places_of_their_own() -> None:
    names = [
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        "conv_norm_out.weight",
        "conv_out.bias",
        "up_blocks.2.x",
    ]
    assert [place_of(name) for name in names] == ["input", "embeddings", "output", "output", "up.2"]


def test_many_groups_in_a_stage_are_squares_that_keep_their_names() -> None:
    groups = [
        {"name": f"mid.g{i}", "method": "full", "on": i < 3, "parameters": [f"mid_block.x{i}"], "numel": 1}
        for i in range(30)
    ]
    cells = [cell for stage in unet_drawing(groups).stages for cell in stage.cells]
    assert all(cell.text == "" for cell in cells)
    assert cells[2].title == "mid.g2: trains, full, 1 numbers"
    assert len({(cell.x, cell.y) for cell in cells}) == 30

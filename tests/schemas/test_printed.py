"""What commands print as JSON is what their schemas describe, key by key."""

import copy
import json
from pathlib import Path

import pytest
from schema_problems import content_problems

from memcontrol.config import RunConfig
from memcontrol.groups import parameter_groups
from memcontrol.pipeline import load_unet
from memcontrol.planning import plan_search
from memcontrol.report.inspection import inspection_json
from memcontrol.space import load_space


def read_again(content):
    return json.loads(json.dumps(content, allow_nan=False))


@pytest.fixture(scope="module")
def plan(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory):
    found = plan_search(small_config, tmp_path_factory.mktemp("out") / "run", workers=1, tflops=0.1)
    return read_again(found.to_json())


@pytest.fixture(scope="module")
def unet():
    return load_unet("tiny")


def inspected(unet, space):
    chosen = load_space(space)
    groups = parameter_groups(chosen, unet)
    numel = sum(parameter.numel() for parameter in unet.parameters())
    return read_again(inspection_json(groups, numel, model_id="tiny", space=chosen))


def test_a_plan_is_described_key_by_key(plan):
    assert plan["ready"]
    assert plan["machine"]
    assert content_problems("plan", plan, closed=True) == []


def test_a_plan_that_cannot_start_is_described(small_config: RunConfig, tmp_path: Path):
    data = small_config.data.model_copy(update={"source": str(tmp_path / "none")})
    config = small_config.model_copy(update={"data": data})
    found = read_again(plan_search(config, tmp_path / "run", workers=1, tflops=0.1).to_json())
    assert (found["ready"], found["machine"], found["seconds"]) == (False, None, None)
    assert content_problems("plan", found, closed=True) == []


@pytest.mark.parametrize("space", ["stage-kinds", "lora-ranks", "paper-svdiff"])
def test_an_inspection_is_described_key_by_key(unet, space):
    assert content_problems("inspection", inspected(unet, space), closed=True) == []


BAD = [
    ("plan", "schema", "memcontrol/plan@2"),
    ("plan", "ready", "yes"),
    ("plan", "work.0.steps", -1),
    ("plan", "work.0.trainings", 0.5),
    ("plan", "needs.0.where", "floor"),
    ("plan", "needs.0.parts", {"weights": "much"}),
    ("plan", "machine.tflops", 0),
    ("plan", "problems", "none"),
    ("inspection", "schema", "memcontrol/plan@1"),
    ("inspection", "masks", 0),
    ("inspection", "model.numel", None),
    ("inspection", "space.content.parts", []),
    ("inspection", "always.percent", 101),
    ("inspection", "groups.0.levels", []),
    ("inspection", "groups.0.levels.0.numel", "9"),
    ("inspection", "groups.0.bit", "first"),
    ("inspection", "groups.0.parameters.0", 7),
]


@pytest.mark.parametrize(("name", "key", "value"), BAD, ids=lambda part: str(part)[:24])
def test_bad_documents_are_refused(name, key, value, plan, unet):
    content = copy.deepcopy(plan if name == "plan" else inspected(unet, "lora-ranks"))
    *above, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    target = content
    for part in above:
        target = target[part]
    target[last] = value
    assert content_problems(name, content)


@pytest.mark.parametrize(("name", "key"), [("plan", "needs"), ("inspection", "groups")])
def test_a_missing_key_is_refused(name, key, plan, unet):
    content = plan if name == "plan" else inspected(unet, "stage-kinds")
    assert content_problems(name, {one: value for one, value in content.items() if one != key})


def test_a_key_that_no_schema_describes_is_found():
    assert content_problems("score", {"value": 1.0, "low": 0.0, "high": 2.0, "n": 3, "better": "lower", "new": 1})
    plan = {"schema": "memcontrol/plan@1", "new": 1}
    assert any("'new' was unexpected" in line for line in content_problems("plan", plan, closed=True))
    assert not any("new" in line for line in content_problems("plan", plan))

"""JSON schemas agree with what reads the files: what one takes or refuses, the other does."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.comparison.config import load_comparison
from memcontrol.config import load_config
from memcontrol.errors import MemControlError
from memcontrol.mask import Mask
from memcontrol.schemas import FORMATS, format_named
from memcontrol.schemas.described import attribute_texts
from memcontrol.score import Score
from memcontrol.space import load_space, space_folder
from memcontrol.transferring.config import load_transfer

ROOT = Path(__file__).parents[2]
MASK = json.loads((ROOT / "experiments/capacity_control_tables/masks/knee.json").read_text(encoding="utf-8"))
SPACE = yaml.safe_load((space_folder() / "lora-ranks.yaml").read_text(encoding="utf-8"))
SCORE = {"value": 0.1, "low": 0.0, "high": 1, "n": 8, "better": "lower", "null": [0.0, 0.1, 0.2], "note": "few"}
CONFIG = {
    "data": {"source": "faces", "train_size": 8},
    "learning_rate": "3e-4:1e-2",
    "scoring": {"objectives": "fd,copy_gap", "encoder_weights": ["clip=a"]},
    "mitigations": ["rwa"],
}
COMPARISON = {"grids": [{"methods": ["full"], "mitigations": "none,rwa"}], "seeds": "5-7", "rates": {"full": 1e-3}}
TRANSFER = {"masks": "mask.json", "seeds": [5, 6], "pick": "all", "rates": "full=1e-3"}


def as_yaml(load):
    def read(content, folder):
        path = folder / "file.yaml"
        path.write_text(yaml.safe_dump(content))
        load(path)

    return read


READERS = {
    "mask": (MASK, lambda content, _folder: Mask.from_json(json.dumps(content))),
    "score": (SCORE, lambda content, _folder: Score.from_json(content)),
    "space": (SPACE, as_yaml(load_space)),
    "config": (CONFIG, as_yaml(load_config)),
    "compare-config": (COMPARISON, as_yaml(load_comparison)),
    "transfer-config": (TRANSFER, as_yaml(load_transfer)),
}
BAD = [
    ("mask", "schema", "memcontrol/mask@2"),
    ("mask", "name", None),
    ("mask", "groups", []),
    ("mask", "groups.0.on", "yes"),
    ("mask", "groups.0.numel", -1),
    ("mask", "learning_rate", 0),
    ("mask", "trainable.percent", 101),
    ("mask", "bits", "0110"),
    ("mask", "model.weights", 3),
    ("score", "value", "0.1"),
    ("score", "n", 0.5),
    ("score", "better", "more"),
    ("score", "high", None),
    ("score", "null", [0.0, 0.1]),
    ("score", "kind", "fd"),
    ("space", "schema", "memcontrol/search-space@2"),
    ("space", "name", "two words"),
    ("space", "learning_rate", 0),
    ("space", "learning_rate", {"low": 1e-3}),
    ("space", "parts", []),
    ("space", "parts.0.method", "lorra"),
    ("space", "parts.0.select", []),
    ("space", "parts.0.group_by", "colour"),
    ("space", "parts.0.rank", []),
    ("config", "tuning", {"step": 3}),
    ("config", "search", {"budget": 0}),
    ("config", "search", {"sampler": "best"}),
    ("config", "budget", 3),
    ("config", "seed", -1),
    ("config", "learning_rate", {"low": 1}),
    ("compare-config", "grids", []),
    ("compare-config", "rates", {"full": 0}),
    ("compare-config", "seed", 3),
    ("transfer-config", "pick", "knees"),
    ("transfer-config", "random", -1),
]


def problems(name, content):
    return list(Draft202012Validator(FORMATS[name].schema()).iter_errors(content))


def changed(content, key, value):
    """A copy with the value of a dotted key replaced."""
    made = copy.deepcopy(content)
    *above, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    target = made
    for part in above:
        target = target[part]
    target[last] = value
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_every_schema_is_one_and_says_what_it_is_of(name):
    schema = FORMATS[name].schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"memcontrol {name}"
    assert schema["description"]
    assert "title" not in next(iter(schema["properties"].values()))


@pytest.mark.parametrize("name", READERS)
def test_schema_and_reader_take_the_same_good_file(name, tmp_path):
    content, read = READERS[name]
    assert problems(name, content) == []
    read(content, tmp_path)


@pytest.mark.parametrize(("name", "key", "value"), BAD, ids=lambda part: str(part)[:24])
def test_schema_and_reader_refuse_the_same_bad_file(name, key, value, tmp_path):
    content, read = READERS[name]
    bad = changed(content, key, value)
    assert problems(name, bad)
    with pytest.raises(MemControlError):
        read(bad, tmp_path)


@pytest.mark.parametrize(("name", "key"), [("mask", "groups"), ("score", "n"), ("space", "parts")])
def test_schema_and_reader_miss_the_same_key(name, key, tmp_path):
    content, read = READERS[name]
    bad = {other: value for other, value in content.items() if other != key}
    assert problems(name, bad)
    with pytest.raises(MemControlError):
        read(bad, tmp_path)


@pytest.mark.parametrize("path", sorted(space_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_is_valid(path):
    assert problems("space", yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("config", "*/config.yaml"),
        ("mask", "*/masks/*.json"),
        ("comparison", "*/*/comparison.json"),
        ("compare-config", "capacity_control_tables/config.yaml"),
        ("transfer-config", "transfer/*.yaml"),
    ],
)
def test_committed_files_of_experiments_are_valid(name, files):
    found = [path for path in sorted((ROOT / "experiments").glob(files)) if is_of(path, name)]
    assert found
    for path in found:
        assert problems(name, yaml.safe_load(path.read_text(encoding="utf-8"))) == [], path


def is_of(path, name):
    """Whether a file is read by this program as such a format: not every experiment's settings are a search's."""
    if name != "config":
        return True
    try:
        load_config(path)
    except MemControlError:
        return False
    return True


def test_keys_are_described_by_docstrings():
    properties = FORMATS["config"].schema()["properties"]
    assert properties["model"]["description"] == "a shipped name, a pipeline folder, or a hub id."
    tuning = FORMATS["config"].schema()["$defs"]["TuningConfig"]["properties"]
    assert tuning["warmup"]["description"] == "share of the steps over which the learning rate rises."


def test_attributes_of_a_docstring_are_read_with_lines_that_go_on():
    text = """Something.

    Attributes:
        one, two: a text
            that goes on: so.
        three: another.

    Raises:
        Error: never.
    """
    assert attribute_texts(text) == {
        "one": "a text that goes on: so.",
        "two": "a text that goes on: so.",
        "three": "another.",
    }


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(MemControlError, match="no format 'masks': did you mean mask"):
        format_named("masks")


def test_the_command_prints_a_schema_or_lists_them():
    result = CliRunner().invoke(app, ["schema", "mask"])
    assert json.loads(result.stdout) == FORMATS["mask"].schema()
    listed = CliRunner().invoke(app, ["schema"], env={"COLUMNS": "200"})
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(FORMATS)
    refused = CliRunner().invoke(app, ["schema", "masks"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("memcontrol: no format 'masks'")

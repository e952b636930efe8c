"""Search-space files: found, read, and refused with the file and the key."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

import memcontrol.methods
import memcontrol.space
from memcontrol.errors import SpaceError
from memcontrol.groups import GROUPINGS
from memcontrol.space import GroupBy, LogRange, SearchSpace, load_space, space_folder, space_names

GOOD = {
    "schema": "memcontrol/search-space@1",
    "name": "mine",
    "learning_rate": 0.001,
    "parts": [{"select": ["*"], "group_by": "stage"}],
}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_shipped_spaces() -> None:
    assert set(space_names()) == {
        *("stage-kinds", "stages", "attention-blocks", "attention-matrices", "layer-kinds"),
        *(f"paper-{method}{twin}" for method in ("svdiff", "difffit", "attention") for twin in ("", "-clean")),
        *("full-tuning", "attention-tuning", "bias-tuning", "norm-tuning", "bitfit"),
        *("lora-blocks", "lora-ranks", "mixed"),
    }
    assert list(space_names()) == sorted(space_names())


@pytest.mark.parametrize("name", space_names())
def test_shipped_rates_suit_the_tiny_models_and_say_so(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert re.search(r"1e-5\s+to\s+1e-3:\s+override\s+with\s+--learning-rate LOW:HIGH", space.description)
    if {part.method for part in space.parts if not part.always} == {"full"}:
        assert space.learning_rate == LogRange(low=3e-4, high=1e-2)
    else:
        assert space.learning_rate in (LogRange(low=1e-3, high=3e-2), LogRange(low=1e-3, high=1e-2))
        assert space.full_learning_rate == 1e-3, "full fine-tuning keeps the rates that suit it"


def test_names_of_the_format_match_the_code_behind_them() -> None:
    assert set(get_args(GroupBy)) == set(GROUPINGS)
    assert set(memcontrol.space.METHODS) == set(memcontrol.methods.METHODS)


def test_the_folder_of_a_checkout_and_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert space_folder() == Path(memcontrol.space.__file__).resolve().parent.parent / "search_spaces"
    package = tmp_path / "site-packages" / "memcontrol"
    (package / "search_spaces").mkdir(parents=True)
    monkeypatch.setattr(memcontrol.space, "__file__", str(package / "space.py"))
    with pytest.raises(SpaceError, match="not installed"):
        space_folder()
    (package / "search_spaces" / "stage-kinds.yaml").write_text(yaml.safe_dump(GOOD | {"name": "stage-kinds"}))
    assert space_folder() == package / "search_spaces"
    assert load_space("stage-kinds").learning_rate == 0.001


def test_a_space_by_path(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GOOD))
    assert space == load_space(str(tmp_path / "mine.yaml"))
    assert space.parts[0].select == ("*",)
    assert space.parts[0].method == "full"


def test_a_local_file_does_not_hide_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages").write_text("no YAML space")
    monkeypatch.chdir(tmp_path)
    assert load_space("stages").name == "stages"


def test_a_rate_without_a_decimal_point_is_a_number(tmp_path: Path) -> None:
    text = "schema: memcontrol/search-space@1\nname: mine\nlearning_rate: 1e-3\nparts: [{select: ['*']}]\n"
    assert load_space(write(tmp_path, text)).learning_rate == 1e-3


def test_content_reads_back_and_decides_the_hash(tmp_path: Path) -> None:
    space = load_space("stage-kinds")
    again = SearchSpace.model_validate(space.content())
    assert again == space
    assert re.fullmatch("[0-9a-f]{64}", space.sha256)
    assert again.sha256 == space.sha256
    reworded = SearchSpace.model_validate(space.content() | {"description": "other words", "name": "other"})
    assert reworded.sha256 == space.sha256
    base = load_space(write(tmp_path, GOOD))
    for change in ({"learning_rate": 0.002}, {"parts": [{"select": ["*"], "group_by": "kind"}]}):
        assert load_space(write(tmp_path, GOOD | change)).sha256 != base.sha256
    explicit = GOOD | {"parts": [{"method": "full", "select": ["*"], "exclude": [], "group_by": "stage"}]}
    assert load_space(write(tmp_path, explicit)).sha256 == base.sha256
    # An optional key added later must not change what today's files hash to.
    assert base.content() == GOOD


def test_rules_are_globs_on_whole_names() -> None:
    part = SearchSpace.model_validate(
        GOOD | {"parts": [{"select": ["up_blocks.[02].*.to_?.weight"], "exclude": ["*.attn2.*"]}]}
    ).parts[0]
    assert part.selects("up_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q.weight")
    assert not part.selects("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight")
    assert not part.selects("up_blocks.2.attentions.0.transformer_blocks.0.attn2.to_q.weight")
    assert not part.selects("x.up_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q.weight")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("parts: [", "is not YAML"),
        ("", "the whole file: expected keys with values"),
        (GOOD | {"schema": "memcontrol/search-space@2"}, r"schema: .*memcontrol/search-space@1.*\(got '.*@2'\)"),
        ({k: v for k, v in GOOD.items() if k != "schema"}, "schema: Field required"),
        (GOOD | {"colour": 1}, "colour: unknown key"),
        (GOOD | {"parts": [{"select": ["*"], "grup_by": "stage"}]}, r"parts\.0\.grup_by: unknown key"),
        (GOOD | {"parts": [{"select": ["*"], "group_by": "stag"}]}, r"parts\.0\.group_by: .*'stage'.*\(got 'stag'\)"),
        (GOOD | {"parts": [{"select": ["*"], "method": "ful"}]}, r"method: unknown method: did you mean full\?"),
        (GOOD | {"parts": [{"select": ["*"], "method": "adapter"}]}, "unknown method: known: difffit, full, lora"),
        (GOOD | {"parts": [{"select": ["*"], "method": "lora"}]}, "method lora needs a rank"),
        (GOOD | {"parts": [{"select": ["*"], "optional": "maybe"}]}, r"parts\.0\.optional: .*\(got 'maybe'\)"),
        (GOOD | {"parts": [{"select": "*"}]}, r"parts\.0\.select"),
        (GOOD | {"parts": [{"select": []}]}, r"parts\.0\.select"),
        (GOOD | {"parts": []}, "parts"),
        (GOOD | {"learning_rate": "fast"}, "learning_rate.*fast"),
        (GOOD | {"learning_rate": 0}, "learning_rate.*greater than 0"),
        (GOOD | {"learning_rate": {"low": 0.1, "high": 0.01}}, "low 0.1 is not below high 0.01"),
        (GOOD | {"learning_rate": {"low": 0.1}}, r"learning_rate\.range\.high: Field required"),
    ],
)
def test_a_malformed_file_is_refused_on_one_line(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(SpaceError, match=message) as caught:
        load_space(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"unknown search space 'stage-kind': did you mean stage-kinds"):
        load_space("stage-kind")
    with pytest.raises(SpaceError, match=r"no search space file .*nowhere\.yaml"):
        load_space(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(SpaceError, match=r"binary\.yaml cannot be read"):
        load_space(binary)

"""Files of any origin, damaged or made to do harm, end in a valid object or one line: nothing runs, nothing escapes."""

import copy
import csv
import io
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from memcontrol.comparison.config import ComparisonConfig, RowsConfig, load_comparison, read_settings
from memcontrol.config import DataConfig, RunConfig, load_config
from memcontrol.data.table import PATH_COLUMNS, read_rows, rows_pool
from memcontrol.errors import MemControlError, RunError, SpaceError
from memcontrol.exporting import export_masks
from memcontrol.finetuning import checkpoints as checkpoints_module
from memcontrol.finetuning.checkpoints import Checkpoint, Checkpoints
from memcontrol.finetuning.state import TrainingState
from memcontrol.finetuning.state_files import file_sha256
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.releasing import FinetuneConfig
from memcontrol.report.closing import closing_table
from memcontrol.run import RunFolder, check_content, read_object
from memcontrol.run_documents import ReferenceFile
from memcontrol.space import SearchSpace, load_space, space_folder
from memcontrol.study.confirmed import read_confirmation, with_confirmed
from memcontrol.transferring.config import TransferConfig, load_transfer

QUICK = settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DEEP, TAGGED = "@DEEP@", "@TAGGED@"
"""Stand for what no serialiser writes: a list in a list in a list..., and a tag that would have something run."""
HOSTILE = (
    *(None, True, -1, 0, 3.5, 10**30, -(10**400), 1e308, float("nan"), float("inf")),
    *(
        "",
        "../../outside",
        "/etc/passwd",
        "masks/../../outside.json",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "1e-3",
        "copy_gap@",
    ),
    *([], {}, [[]], {"a": {"b": None}}, ["../outside.json"], DEEP, TAGGED),
)


# Real files


def mask_of(space, bits="1"):
    unet = torch.nn.Linear(2, 2)
    return Mask.build(
        space,
        parameter_groups(space, unet),
        bits,
        model=ModelIdentity.of(unet, "tiny"),
        unet_numel=6,
        learning_rate=1e-3,
        name="mine",
        scores={"fd@pixels": score(1.0)},
        provenance={"trial": 0, "steps": 6},
    )


def score(value):
    return {"value": value, "low": value - 0.5, "high": value + 0.5, "n": 24, "better": "lower"}


SCORES = {"fd@pixels": score(1.0), "copy_gap@pixels": score(0.1)}
SPACE = {
    "schema": "memcontrol/search-space@1",
    "name": "whole",
    "learning_rate": {"low": 1e-4, "high": 1e-2},
    "parts": [{"method": "lora", "select": ["weight"], "rank": [1, 2]}, {"select": ["bias"], "name": "bias"}],
}
FRONT = {
    "schema": "memcontrol/front@1",
    "objectives": [{"name": name, "better": "lower"} for name in SCORES],
    "budget": 3,
    "sampler": "gp",
    "seed": 0,
    "trials": {"complete": 3},
    "references": {"freeze": [{"learning_rate": None, "steps": 0, "loss": None, "scores": SCORES}]},
    "front": [
        {
            "mask": "masks/trial-000.json",
            "trial": 0,
            "bits": "1",
            "trains": ["all"],
            "numel": 6,
            "learning_rate": 1e-3,
            "mitigations": [],
            "steps": 6,
            "scores": SCORES,
        }
    ],
    "hypervolume": 0.5,
    "reference_point": [2.0, 0.2],
}
CONFIRMATION = {
    "schema": "memcontrol/confirmation@1",
    "run": {"seed": 0, "data": "sha256:0"},
    "measures": [],
    "held_out": {"set": "confirmation"},
    "images": 24,
    "confidence": 0.95,
    "scores": [{"name": name, "better": "lower"} for name in SCORES],
    "failed": [],
    "seeds": [101, 102],
    "rows": [
        {
            "name": "trial-000",
            "kind": "front",
            "trial": 0,
            "bits": "1",
            "mask": "masks/trial-000.json",
            "learning_rate": 1e-3,
            "steps": 6,
            "mitigations": [],
            "numel": 6,
            "seeds": [101, 102],
            "scores": {
                name: {"value": 1.0, "low": 0.5, "high": 1.5, "n": 24, "better": "lower", "values": [1.0, 1.0]}
                for name in SCORES
            },
        }
    ],
}
ROWS = [
    {"file_name": f"{number}.png", "text": f"image {number}", "subject_id": f"{number}", "split": "train"}
    for number in range(3)
]
REFERENCE = {"name": "freeze", "points": FRONT["references"]["freeze"], "error": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder with something beside it that is not its own."""
    outer = tmp_path_factory.mktemp("outer")
    space = SearchSpace.model_validate({**SPACE, "learning_rate": 1e-3, "parts": [{"select": ["*"], "name": "all"}]})
    run = RunFolder(outer / "run")
    run.prepare()
    run.write_json(run.front, FRONT)
    (run.path / "masks").mkdir()
    mask_of(space).save(run.mask(0))
    mask_of(space).save(outer / "outside.json")
    images = outer / "images"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(images / f"{number}.png")
    Image.new("RGB", (8, 8)).save(outer / "outside.png")
    saved = Checkpoints(outer / "out" / "kept", {"seed": "0"}, ONE)
    saved.save(4, {"training": {"part": {"step": 4, "weights": torch.ones(3)}}, "losses": [0.5, 0.25]})
    return SimpleNamespace(outer=outer, run=run, mask=json.loads(run.mask(0).read_text()), images=images)


ONE = SimpleNamespace(num_processes=1, process_index=0, is_main_process=True, wait_for_everyone=lambda: None)


# What is done to them


def places(content, at=()):
    """The way to every value in it."""
    yield at
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


def changed(draw, content):
    """A copy with up to three values deleted, replaced, renamed, or put in twice."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 3))):
        found = [way for way in places(content) if way]
        if not found:
            break
        *before, last = draw(st.sampled_from(found))
        inside = content
        for key in before:
            inside = inside[key]
        match draw(st.sampled_from(("delete", "replace", "replace", "replace", "add"))):
            case "delete":
                del inside[last]
            case "replace":
                inside[last] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "add" if isinstance(inside, dict):
                inside[draw(st.sampled_from(("unknown", "", "../x", "__class__", "schema")))] = inside[last]
            case "add":
                inside.append(copy.deepcopy(inside[last]))
    return content


def damaged(draw, content: bytes) -> bytes:
    """The bytes, now and then with some of them gone, flipped or not of any text."""
    at = draw(st.integers(0, max(0, len(content) - 1)))
    match draw(st.sampled_from(("none",) * 6 + ("cut", "flip", "bytes", "empty"))):
        case "cut":
            return content[:at]
        case "flip":
            return content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        case "bytes":
            return content[:at] + b"\xff\xfe\x00" + content[at:]
        case "empty":
            return b""
    return content


def as_json(content) -> bytes:
    text = json.dumps(content).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000)
    return text.encode()


def as_yaml(content, marker) -> bytes:
    tag = f'!!python/object/apply:os.system ["touch {marker}"]'
    text = yaml.safe_dump(content, allow_unicode=False, width=10**6)
    for quoted in (f"'{TAGGED}'", TAGGED):
        text = text.replace(quoted, tag)
    return text.replace(f"'{DEEP}'", "[" * 600 + "]" * 600).encode()


def as_table(rows) -> bytes:
    text = io.StringIO()
    rows = [row if isinstance(row, dict) else {"file_name": row} for row in rows]
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


def refused_or_read(read):
    """What is read, None where it is refused with a line; any other error fails the test."""
    try:
        return read()
    except MemControlError:
        return None


# What becomes of them


@QUICK
@given(data=st.data())
def test_a_mask_is_whole_or_refused(place, data):
    file = place.outer / "a-mask.json"
    file.write_bytes(damaged(data.draw, as_json(changed(data.draw, place.mask))))
    mask = refused_or_read(lambda: Mask.from_pretrained(file))
    if mask is not None:
        assert Mask.from_json(mask.to_json()) == mask


YAML_FILES = {
    "space": (SPACE, load_space, SearchSpace),
    "config": (RunConfig().model_dump(mode="json"), load_config, RunConfig),
    "finetune": (
        FinetuneConfig().model_dump(mode="json"),
        lambda path: read_settings(path, FinetuneConfig),
        FinetuneConfig,
    ),
    "compare": (ComparisonConfig().model_dump(mode="json"), load_comparison, ComparisonConfig),
    "transfer": (TransferConfig(masks=("a",)).model_dump(mode="json"), load_transfer, TransferConfig),
}


@pytest.mark.parametrize("name", YAML_FILES)
@QUICK
@given(data=st.data())
def test_a_yaml_file_is_whole_or_refused_and_runs_nothing(place, name, data):
    content, load, kind = YAML_FILES[name]
    file, marker = place.outer / f"{name}.yaml", place.outer / "was-run"
    file.write_bytes(damaged(data.draw, as_yaml(changed(data.draw, content), marker)))
    found = refused_or_read(lambda: load(file))
    assert found is None or isinstance(found, kind)
    assert not marker.exists()


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@QUICK
@given(data=st.data())
def test_a_front_is_whole_or_refused_and_names_no_file_outside(place, data):
    place.run.front.write_bytes(damaged(data.draw, as_json(changed(data.draw, FRONT))))
    before = listing(place.outer)
    front = refused_or_read(place.run.read_front)
    if front is not None:
        closing_table(front, place.run)
        for member in front["front"]:
            assert (place.run.path / member["mask"]).resolve().is_relative_to(place.run.path.resolve())
        out = place.run.path / "exported"
        refused_or_read(lambda: export_masks(place.run.path, "all", out))
        shutil.rmtree(out, ignore_errors=True)
    assert listing(place.outer) == before


@QUICK
@given(data=st.data())
def test_a_confirmation_is_whole_or_refused(place, data):
    folder = RunFolder(place.outer / "confirmed")
    folder.write_json(folder.front, FRONT)
    document = folder.confirmation / "confirmation.json"
    document.parent.mkdir(exist_ok=True)
    document.write_bytes(damaged(data.draw, as_json(changed(data.draw, CONFIRMATION))))
    found = refused_or_read(lambda: with_confirmed(folder.read_front(), read_confirmation(folder)))
    assert found is None or len(found["front"]) == 1


@QUICK
@given(data=st.data())
def test_a_reference_is_whole_or_refused(place, data):
    file = place.outer / "freeze.json"
    file.write_bytes(damaged(data.draw, as_json(changed(data.draw, REFERENCE))))
    refused_or_read(lambda: check_content(read_object(file), ReferenceFile, file))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@QUICK
@given(data=st.data())
def test_a_table_of_images_names_only_images_of_its_folder(place, suffix, data):
    rows = changed(data.draw, ROWS)
    content = as_table(rows) if suffix == "csv" else b"\n".join(map(as_json, rows))
    file = place.images / f"metadata.{suffix}"
    file.write_bytes(damaged(data.draw, content))
    config = DataConfig(source=str(place.images))
    pool = refused_or_read(
        lambda: rows_pool(read_rows(file), config, resolution=8, name="images", path_columns=PATH_COLUMNS)
    )
    if pool is not None:
        assert set(pool.images.keys) <= {"0.png", "1.png", "2.png"}
        assert len(pool.images) == len(pool.images.captions)


class Part:
    """Something that was saved, and takes only what is its own."""

    def state_dict(self):
        return {"step": self.step, "weights": self.weights}

    def load_state_dict(self, state):
        self.step, self.weights = int(state["step"]), torch.zeros(3).copy_(state["weights"])


@pytest.mark.parametrize("name", [checkpoints_module.MANIFEST, "shared.json", "shared.safetensors"])
@QUICK
@given(data=st.data())
def test_a_checkpoint_is_whole_or_passed_over(place, name, data):
    """Also where its manifest agrees to what was changed, as in a folder that others made."""
    folder = place.outer / "out" / "kept" / "step-00000004"
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    file, manifest = folder / name, folder / checkpoints_module.MANIFEST
    try:
        content = whole[file]
        if name.endswith(".json"):
            content = as_json(changed(data.draw, json.loads(content)))
        file.write_bytes(damaged(data.draw, content))
        if file != manifest:
            agreed = json.loads(whole[manifest])
            agreed["bytes"][name], agreed["sha256"][name] = file.stat().st_size, file_sha256(file)
            manifest.write_text(json.dumps(agreed))
        kept = Checkpoints(place.outer / "out" / "kept", {"seed": "0"}, ONE)
        found = refused_or_read(lambda: kept.latest([].append))
        if found is not None:
            assert isinstance(found, Checkpoint)
            state = TrainingState(found.content.get("training", {}))
            refused_or_read(lambda: state.add("part", Part()))
    finally:
        for path, content in whole.items():
            path.write_bytes(content)


# By name


def bomb(levels=60):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(), "holds more than 200,000 values"),
        ("a: &a [*a]", "an alias stands for what it is in"),
        ("a: &a {b: 1}\n<<: [" + ", ".join(["*a"] * 9) + "]\n" + bomb(), "holds more than"),
        ("[" * 600, "nested too deeply"),
        ("when: 2001-99-99", "month must be in"),
        ("when: !!timestamp soon", "a value does not have the kind that its tag names"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: !!bool perhaps", "a value does not have the kind that its tag names"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("\x07", "special characters are not allowed"),
    ],
)
def test_yaml_that_would_do_harm_is_one_line(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    for load in (load_space, load_config, load_comparison, load_transfer):
        with pytest.raises(MemControlError, match=message) as refused:
            load(file)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 1000


def test_yaml_aliases_of_a_modest_size_are_read(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "schema: memcontrol/search-space@1\nname: same\nlearning_rate: 1.0e-3\nparts:\n"
        "  - {select: &chosen ['*.bias']}\n  - {select: ['*.weight'], exclude: *chosen}\n"
    )
    assert load_space(file).parts[1].exclude == ("*.bias",)


@pytest.mark.parametrize("path", ["../outside.json", "/etc/passwd", "masks/../../outside.json", "", "a\0b", "..\\x"])
def test_a_front_that_names_a_file_outside_its_folder_is_refused(place, path):
    content = copy.deepcopy(FRONT)
    content["front"][0]["mask"] = path
    place.run.write_json(place.run.front, content)
    with pytest.raises(RunError, match=r"front\.0\.mask: expected the path of a file inside the run folder"):
        export_masks(place.run.path, "all", place.outer / "exported")
    assert not (place.outer / "exported").exists()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("references", "references: Field required"),
        ("objectives", "objectives: Field required"),
        ("front", "front: Field required"),
    ],
)
def test_a_front_that_lacks_a_key_is_refused_by_name(place, key, message):
    place.run.write_json(place.run.front, {name: value for name, value in FRONT.items() if name != key})
    with pytest.raises(RunError, match=message):
        place.run.read_front()


def test_a_front_without_a_score_of_an_objective_is_refused(place):
    content = copy.deepcopy(FRONT)
    del content["front"][0]["scores"]["copy_gap@pixels"]
    place.run.write_json(place.run.front, content)
    with pytest.raises(RunError, match="no score of the objective copy_gap@pixels"):
        place.run.read_front()


def test_keys_that_contradict_each_other_are_said_to(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text("seeds: [0, 0]")
    with pytest.raises(MemControlError, match="expected each once"):
        read_settings(file, RowsConfig)


def test_every_shipped_space_is_read():
    for file in space_folder().glob("*.yaml"):
        assert load_space(file).name
    with pytest.raises(SpaceError, match="unknown search space"):
        load_space("nothing-of-ours")

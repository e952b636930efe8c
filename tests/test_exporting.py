"""Export copies the front's masks that a pick names, and says what is missing."""

import pytest
import torch

from memcontrol.errors import MemControlError, RunError
from memcontrol.exporting import export_masks
from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.run import FRONT_SCHEMA, RunFolder
from memcontrol.space import SearchSpace

OBJECTIVES = ({"name": "fd@pixels", "better": "lower"}, {"name": "amd@pixels", "better": "higher"})
# The first is best in fidelity, the last copies least (its distance is largest), the second is the knee.
FRONT = ((1.0, 0.10), (2.0, 0.28), (8.0, 0.29), (9.0, 0.30))


def score(value, better):
    return {"value": value, "low": value - 1, "high": value + 1, "n": 8, "better": better}


def saved_mask(path, number):
    space = SearchSpace.model_validate(
        {
            "schema": "memcontrol/search-space@1",
            "name": "mine",
            "learning_rate": 1e-3,
            "parts": [{"select": ["*"], "name": "all"}],
        }
    )
    unet = torch.nn.Linear(2, 2)
    mask = Mask.build(
        space,
        parameter_groups(space, unet),
        "1",
        model=ModelIdentity.of(unet, "tiny"),
        unet_numel=6,
        learning_rate=1e-3,
        name=f"mine-{number:03d}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)


def run_of(path, points=FRONT, objectives=OBJECTIVES):
    """A finished search with a front of these points."""
    folder = RunFolder(path)
    members = []
    for number, point in enumerate(points):
        saved_mask(folder.mask(number), number)
        scores = {o["name"]: score(value, o["better"]) for o, value in zip(objectives, point, strict=True)}
        facts = {"trial": number, "bits": "1", "trains": ["all"], "numel": 6, "learning_rate": 1e-3, "steps": 6}
        members.append({"mask": f"masks/trial-{number:03d}.json", "scores": scores} | facts)
    content = {"schema": FRONT_SCHEMA, "objectives": list(objectives), "front": members, "references": {}}
    facts = {"budget": 3, "sampler": "gp", "seed": 0, "trials": {}, "hypervolume": None, "reference_point": None}
    folder.write_json(folder.front, content | facts)
    return path


@pytest.mark.parametrize(
    ("pick", "numbers"), [("best-fidelity", [0]), ("knee", [1]), ("least-copied", [3]), ("all", [0, 1, 2, 3])]
)
def test_picks(tmp_path, pick, numbers):
    run = run_of(tmp_path / "run")
    paths = export_masks(run, pick, tmp_path / "new" / "masks")
    assert paths == [tmp_path / "new" / "masks" / f"mine-{number:03d}.json" for number in numbers]
    for path, number in zip(paths, numbers, strict=True):
        assert Mask.from_pretrained(path) == Mask.from_pretrained(RunFolder(run).mask(number))


def test_an_unknown_pick_writes_nothing(tmp_path):
    with pytest.raises(MemControlError, match="unknown pick 'kneee': did you mean knee"):
        export_masks(run_of(tmp_path / "run"), "kneee", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no front\.json in"):
        export_masks(tmp_path, "knee", tmp_path / "out")
    with pytest.raises(RunError, match=r"the front of .* is empty"):
        export_masks(run_of(tmp_path / "run", points=()), "knee", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*file/out"):
        export_masks(run_of(tmp_path / "run"), "knee", tmp_path / "file" / "out")


def test_one_objective_has_no_least_copied(tmp_path):
    run = run_of(tmp_path / "run", points=((1.0,),), objectives=OBJECTIVES[:1])
    assert len(export_masks(run, "knee", tmp_path / "out")) == 1
    with pytest.raises(MemControlError, match="least-copied"):
        export_masks(run, "least-copied", tmp_path / "out")

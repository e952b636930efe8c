import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_clip

from memcontrol.encoders import load_encoder
from memcontrol.encoders.weights import load_state, parameters_identity, read_state
from memcontrol.errors import MissingPackageError, ModelError

MEDICAL = {
    "inception": ("torch_fidelity", "weights-inception-2015-12-05-6726825d.pth"),
    "xrv-densenet121": ("torchxrayvision", "densenet121-res224-mimic_ch"),
    "biovil-t": ("health_multimodal", "biovil_t_image_model_proj_size_128.pt"),
}


class Surprise:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (print, ("unpickled",))


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize("name", MEDICAL)
def test_a_missing_package_names_the_medical_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, find_spec = MEDICAL[name][0], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(MissingPackageError, match=rf"package {package} .*-c constraints-medical.txt .*\[medical\]"):
        load_encoder(name)


@pytest.mark.parametrize("name", MEDICAL)
def test_missing_weights_say_which_and_how_to_give_them(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("inception", "chest", "biovil"):
        monkeypatch.setattr(f"memcontrol.encoders.{module}.package_file", lambda *_, **__: tmp_path)
    wanted = MEDICAL[name][1]
    with pytest.raises(ModelError, match=rf"encoder {name} needs weights, got none: .*{wanted}.*--weights {name}=PATH"):
        load_encoder(name)
    with pytest.raises(ModelError, match=rf"there is no .*absent.pt, expected .*{wanted}"):
        load_encoder(name, weights=str(tmp_path / "absent.pt"))


@pytest.mark.parametrize(("name", "hub_id"), [("clip", "openai/clip-vit-base-patch32"), ("dinov2", "facebook/dinov2-")])
def test_a_hub_id_that_cannot_be_reached_says_how_to_give_a_folder(name: str, hub_id: str) -> None:
    with pytest.raises(ModelError, match=rf"{hub_id}.* cannot be loaded .*local cache.*--weights {name}=PATH"):
        load_encoder(name)


@pytest.mark.parametrize("weights", ["nowhere", "./nowhere/clip", "/nowhere/clip", "a/b/c"])
def test_neither_a_folder_nor_a_hub_id_is_refused(weights: str) -> None:
    with pytest.raises(ModelError, match=r"is neither a folder nor a hub id, .*--weights clip=PATH"):
        load_encoder("clip", weights=weights)


def test_a_folder_of_another_architecture_is_refused(clip_folder: Path, dinov2_folder: Path) -> None:
    with pytest.raises(ModelError, match="a network of type dinov2, expected clip: give clip's own weights"):
        load_encoder("clip", weights=str(dinov2_folder))
    with pytest.raises(ModelError, match="a network of type clip, expected dinov2"):
        load_encoder("dinov2", weights=str(clip_folder))


def test_missing_tensors_are_never_left_random(tmp_path: Path) -> None:
    file = save_clip(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    del tensors["visual_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"architecture, with tensors 1 missing \(visual_projection.weight\)"):
        load_encoder("clip", weights=str(tmp_path))


def test_tensors_of_another_size_are_never_left_random(tmp_path: Path) -> None:
    save_clip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["projection_dim"] = 10
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"2 of another size \(text_projection.weight, visual_projection.weight\)"):
        load_encoder("clip", weights=str(tmp_path))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "model.safetensors", "config.json", "tokenizer.json"])
def test_an_incomplete_folder_is_refused(file: str, tmp_path: Path) -> None:
    (save_clip(tmp_path) / file).unlink()
    with pytest.raises(
        ModelError, match=r"cannot be loaded|has no config|the tokenizer in .* knows 2 tokens, expected 54"
    ):
        load_encoder("clip", weights=str(tmp_path))


def test_weights_of_another_network_are_counted_and_named(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"_fc.weight": torch.zeros(2, 2), "strange": torch.zeros(1)}, file)
    with pytest.raises(
        ModelError,
        match=r"tensors \d+ missing \(_blocks.* and \d+ more\), 1 unexpected \(strange\), 1 of another size \(_fc",
    ):
        load_encoder("efficientnet-lite0", weights=str(file))


def test_a_refused_state_leaves_the_network_as_it_was() -> None:
    target = network()
    before = parameters_identity(target)
    with pytest.raises(ModelError, match="1 missing"):
        load_state(
            target, {key: tensor + 1 for key, tensor in list(target.state_dict().items())[1:]}, name="x", source="y"
        )
    assert parameters_identity(target) == before


@pytest.mark.parametrize("kind", ["state", "network", "safetensors"])
def test_tensors_are_read_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    saved = network()
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(saved.state_dict(), file)
    else:
        torch.save(saved if kind == "network" else saved.state_dict(), file)
    loaded = network()
    classes = [torch.nn.Sequential, torch.nn.Linear, torch.nn.BatchNorm1d]
    load_state(loaded, read_state(file, "x", classes=classes), name="x", source=str(file))
    assert parameters_identity(loaded) == parameters_identity(saved) != parameters_identity(network())


def test_nothing_in_a_weight_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.zeros(1), "b": Surprise()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w.pt cannot be read as tensors .*save the network's state dict"):
        read_state(tmp_path / "w.pt", "x")
    assert "unpickled" not in capsys.readouterr().out


def test_files_that_hold_no_tensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    for file, match in (("text.pt", "cannot be read as tensors"), ("numbers.pt", "holds a dict of other things")):
        with pytest.raises(ModelError, match=match):
            read_state(tmp_path / file, "x")
    with pytest.raises(ModelError, match="is a folder, expected a file"):
        read_state(tmp_path, "x")


def test_identity_is_of_names_values_and_settings() -> None:
    one = network()
    other = network()
    other.load_state_dict(one.state_dict())
    assert parameters_identity(one, 3) == parameters_identity(other, 3) != parameters_identity(one, 4)
    with torch.no_grad():
        other[0].weight[0, 0] += np.float32(1e-3)
    assert parameters_identity(one, 3) != parameters_identity(other, 3)


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_file_that_holds_no_tensors_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no tensors, and longer than a header")
    with pytest.raises(ModelError, match=rf"weights of encoder own: .*{name} cannot be read as tensors \(") as caught:
        read_state(tmp_path / name, "own")
    assert "\n" not in str(caught.value)

"""Arrays of the authors' code become named masks that fine-tune, and what is no such array is refused."""

import hashlib
import json

import numpy as np
import pytest
from unet_configs import numel_of, unet_of

from memcontrol.errors import MaskError, ModelError, SpaceError
from memcontrol.groups import parameter_groups
from memcontrol.importing import authors_space, import_mask, read_bits, save_mask
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.space import load_space

BITS = (1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0)


def saved(path, values, dtype=None):
    np.save(path, np.array(values, dtype=dtype))
    return path


@pytest.fixture
def thirteen(tmp_path):
    return saved(tmp_path / "best mask.npy", BITS)


def imported(file, space="paper-difffit", model="tiny-sd", **options):
    return import_mask(file, model=model, space=space, **({"learning_rate": 1e-3} | options))


@pytest.mark.parametrize("space", ["paper-svdiff", "paper-difffit"])
def test_each_bit_switches_the_block_of_its_place(space, thirteen):
    mask = imported(thirteen, space)
    gated = [group for group in mask.groups if ".attentions." in group.name]
    assert [group.on for group in gated] == list(map(bool, BITS))
    assert [group.name for group in gated if group.on] == [
        *("down.0.attentions.0", "down.1.attentions.1", "down.2.attentions.0", "mid.attentions.0"),
        *("up.2.attentions.1", "up.3.attentions.0"),
    ]
    rest = [group for group in mask.groups if group not in gated]
    assert rest
    assert all(group.on for group in rest), "what the authors always train is on"


def test_a_mask_has_the_models_identity_and_the_files(thirteen):
    mask = imported(thirteen, learning_rate=3e-4, steps=3000)
    unet = unet_of("tiny-sd")
    assert mask.model == ModelIdentity.of(unet, "tiny-sd")
    mask.check(unet)
    groups = parameter_groups(load_space("paper-difffit"), unet)
    on = [group for group in groups if group.always] + [group for group, bit in zip(groups, BITS, strict=False) if bit]
    assert mask.trainable.numel == sum(group.numel for group in on)
    assert mask.trainable.percent == pytest.approx(100 * mask.trainable.numel / numel_of("tiny-sd"))
    assert mask.learning_rate == 3e-4
    assert mask.provenance["steps"] == 3000
    assert mask.provenance["imported"] == {
        "file": "best mask.npy",
        "sha256": "sha256:" + hashlib.sha256(thirteen.read_bytes()).hexdigest(),
    }
    assert mask.scores == {}
    assert "steps" not in imported(thirteen).provenance, "an array does not say its steps"


def test_sixteen_bits_are_the_attention_space_and_thirteen_are_not_guessed(tmp_path, thirteen):
    sixteen = saved(tmp_path / "sixteen.npy", [1, 0] * 8)
    assert imported(sixteen, space=None).space.name == "paper-attention"
    with pytest.raises(MaskError, match=r"13 bits fit paper-svdiff and paper-difffit alike: name the .* --space"):
        imported(thirteen, space=None)
    with pytest.raises(MaskError, match=r"14 bits fit none of the authors' spaces \(13 or 16 bits\)"):
        authors_space(14)


def test_any_space_may_be_named(tmp_path):
    mask = imported(saved(tmp_path / "seven.npy", [0, 1, 0, 0, 0, 0, 1]), "paper-attention-clean", "tiny")
    assert [group.name for group in mask.trained] == ["down.1.attentions.0", "up.1.attentions.1"]


def test_a_mask_that_trains_nothing_has_no_rate(tmp_path):
    mask = imported(saved(tmp_path / "zeros.npy", [0] * 16), "paper-difffit-clean")
    assert (mask.learning_rate, mask.trainable.numel) == (None, 0)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float16, np.float32, ">f8"])
def test_zeros_and_ones_of_any_kind_are_read(dtype, tmp_path):
    assert read_bits(saved(tmp_path / "mask.npy", [0, 1, 1], dtype)) == (False, True, True)


def archive(path):
    np.savez(path.with_suffix(".npz"), a=np.ones(13))
    path.with_suffix(".npz").rename(path)


def pickled(path):
    np.save(path, np.array([True, None], dtype=object), allow_pickle=True)


def promising(path):
    with path.open("wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**14,)}
        np.lib.format.write_array_header_1_0(file, header)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bool, r"no mask array .* \(No such file or directory\): give an existing \.npy file"),
        (lambda path: path.mkdir(), r"no mask array .* \(Is a directory\)"),
        (lambda path: path.write_bytes(b""), r"is not a \.npy array of numbers"),
        (lambda path: path.write_text("1 0 1"), r"is not a \.npy array of numbers"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8',"), r"is not a \.npy array of"),
        (promising, r"is not a \.npy array of numbers"),
        (pickled, r"is not a \.npy array of numbers \(.*objects"),
        (archive, r"is not a \.npy array of numbers"),
        (lambda path: saved(path, ["0", "1"]), r"holds values of type <U1: expected booleans, or numbers"),
        (lambda path: saved(path, [0, 1j]), r"holds values of type complex128"),
        (lambda path: saved(path, 1), r"has shape \(\): expected one dimension"),
        (lambda path: saved(path, [BITS]), r"has shape \(1, 13\): expected one dimension"),
        (lambda path: saved(path, []), r"has shape \(0,\): expected one dimension"),
        (lambda path: saved(path, [0.0, 0.25, 1.0, 0.5]), r"holds 0\.25 \(2 of 4 values are .*: continuous masks are"),
        (lambda path: saved(path, [0, 2, 1]), r"holds 2 \(1 of 3 values"),
        (lambda path: saved(path, [0, np.nan]), r"holds nan \(1 of 2 values"),
    ],
)
def test_what_is_no_array_of_zeros_and_ones_is_refused_on_one_line(write, message, tmp_path):
    path = tmp_path / "mask.npy"
    write(path)
    with pytest.raises(MaskError, match=message) as caught:
        imported(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"space": "paper-attention"}, MaskError, r"holds 13 bits and paper-attention has 16 on tiny-sd: name"),
        ({"model": "tiny"}, MaskError, r"holds 13 bits and paper-difffit has 7 on tiny"),
        ({"space": "paper-diffit"}, SpaceError, "did you mean paper-difffit"),
        ({"model": "tiny-ds"}, ModelError, "did you mean tiny-sd"),
        ({"learning_rate": 0.0}, MaskError, "learning rate 0: expected a rate above 0"),
        ({"learning_rate": float("nan")}, MaskError, "learning rate nan: expected a rate above 0"),
        ({"steps": 0}, MaskError, "0 steps: expected a number of at least 1"),
    ],
)
def test_bits_that_do_not_fit_are_refused(options, error, message, thirteen):
    with pytest.raises(error, match=message):
        imported(thirteen, **options)


def test_a_space_of_several_ranks_is_refused(tmp_path):
    space = tmp_path / "ranks.yaml"
    part = {"method": "lora", "rank": [2, 8], "select": ["*.attn1.to_q.weight"], "group_by": "attention-block"}
    space.write_text(
        json.dumps({"schema": "memcontrol/search-space@1", "name": "ranks", "learning_rate": 1e-3, "parts": [part]})
    )
    with pytest.raises(MaskError, match=r"ranks chooses among settings for down\.0\.attentions\.0: zeros and ones do"):
        imported(saved(tmp_path / "seven.npy", [1] * 7), space, "tiny")


def test_a_saved_mask_reads_back_and_is_never_overwritten_by_another(tmp_path, thirteen):
    out = tmp_path / "new" / "masks"
    mask = imported(thirteen)
    path = save_mask(mask, out)
    assert path == out / "paper-difffit-1001-1010-0011-0.json"
    assert Mask.from_pretrained(path) == mask
    assert save_mask(imported(thirteen), out) == path, "the same import again changes nothing"
    with pytest.raises(MaskError, match=r"exists and differs: name another folder with --out"):
        save_mask(imported(thirteen, learning_rate=3e-4), out)
    assert Mask.from_pretrained(path) == mask

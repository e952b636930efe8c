"""A weight is decomposed once, whoever asks; a file that is not whole, or not of that weight, is never used."""

import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import nn

from memcontrol.cache import Cache
from memcontrol.errors import MemControlError, ModelError
from memcontrol.methods import decompositions
from memcontrol.methods.decompositions import Decompositions, decomposed, matrix_shape, prepared

NAMES = ("0.weight", "1.weight", "2.weight", "3.weight")


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 5), nn.Linear(5, 9))
    nn.init.normal_(layers[1].weight)
    return layers


@pytest.fixture
def counted(monkeypatch):
    """The names of the weights that were decomposed, in order."""
    made = []

    def count(weight, name):
        made.append(name)
        return decomposed(weight, name)

    monkeypatch.setattr(decompositions, "decomposed", count)
    return made


def files(folder, pattern="*.safetensors"):
    return sorted((folder / "svd").glob(pattern))


def dense(factors):
    return factors.u.double() @ torch.diag(factors.s.double()) @ factors.vh.double()


def same(factors, others):
    return all(torch.equal(getattr(factors, part), getattr(others, part)) for part in ("u", "s", "vh"))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (1, 6), (6, 1), (4, 3, 2, 3), (7,), (1,)])
def test_the_factors_multiply_to_the_weight(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    factors = decomposed(weight)
    matrix = weight.reshape(1, -1) if len(shape) == 1 else weight.flatten(1)
    k = min(matrix.shape)
    assert matrix_shape(weight) == matrix.shape
    assert (factors.u.shape, factors.s.shape, factors.vh.shape) == ((len(matrix), k), (k,), (k, matrix.shape[1]))
    torch.testing.assert_close(dense(factors), matrix.double(), atol=3e-7, rtol=0)
    torch.testing.assert_close(factors.u.T @ factors.u, torch.eye(k))
    torch.testing.assert_close(factors.vh @ factors.vh.T, torch.eye(k))
    torch.testing.assert_close(factors.s, torch.linalg.svdvals(matrix))


def test_a_zero_vector_has_a_direction_all_the_same():
    factors = decomposed(torch.zeros(4))
    assert factors.s.tolist() == [0]
    assert factors.u.tolist() == [[1]]
    assert factors.vh.tolist() == [[0.5, 0.5, 0.5, 0.5]]


def test_half_precision_is_decomposed_in_full():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    factors = decomposed(weight)
    assert factors.u.dtype == factors.s.dtype == factors.vh.dtype == torch.float32
    torch.testing.assert_close(dense(factors), weight.double(), atol=3e-7, rtol=0)


@pytest.mark.parametrize("shape", [(3, 4), (5,)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_without_decomposition_is_named(network, tmp_path, shape, value):
    network.spoiled = nn.Parameter(torch.ones(shape).index_fill(0, torch.tensor(1), value))
    with pytest.raises(ModelError, match=r"spoiled holds NaN or infinite values.*load a sound model"):
        prepared(network, ["2.weight", "spoiled"], Cache(tmp_path))


@pytest.mark.parametrize("cached", [True, False])
def test_every_weight_is_decomposed_under_its_name(network, tmp_path, cached):
    made = prepared(network, NAMES, Cache(tmp_path) if cached else None)
    assert set(made) == set(NAMES)
    for name, factors in made.items():
        weight = network.get_parameter(name).detach()
        torch.testing.assert_close(dense(factors).reshape(weight.shape), weight.double(), atol=3e-7, rtol=0)
    assert len(list(tmp_path.rglob("*.safetensors"))) == (4 if cached else 0)


def test_what_is_known_is_not_made_again(network, tmp_path, counted):
    first = prepared(network, NAMES, Cache(tmp_path))
    again = prepared(network, NAMES, Cache(tmp_path))
    assert sorted(counted) == sorted(NAMES)
    assert all(same(first[name], again[name]) for name in NAMES)


def test_a_weight_that_changed_is_made_anew_and_alone(network, tmp_path, counted):
    prepared(network, NAMES, Cache(tmp_path))
    del counted[:]
    with torch.no_grad():
        network[2].weight[0, 0] += 1e-3
    made = prepared(network, NAMES, Cache(tmp_path))
    assert counted == ["2.weight"]
    torch.testing.assert_close(dense(made["2.weight"]).float(), network[2].weight.detach(), atol=1e-6, rtol=0)


def test_the_same_bytes_in_another_shape_or_type_are_another_weight(tmp_path, counted):
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(torch.float16)
    network = nn.Module()
    network.one = nn.Parameter(values)
    network.two = nn.Parameter(values.reshape(6, 4))
    network.three = nn.Parameter(values.view(torch.bfloat16))
    prepared(network, ["one", "two", "three"], Cache(tmp_path))
    assert counted == ["one", "two", "three"]
    assert len(files(tmp_path)) == 3


def test_layers_with_equal_weights_share_a_file(tmp_path, counted):
    network = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8))
    made = prepared(network, ["0.weight", "1.weight"], Cache(tmp_path))
    assert counted == ["0.weight"]
    assert same(made["0.weight"], made["1.weight"])


def rewritten(path, change):
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(change(tensors), path)


def hole(path):
    """As a disk leaves it that lost power: the right length, zeros in the middle."""
    content = bytearray(path.read_bytes())
    content[-60:-20] = bytes(40)
    path.write_bytes(bytes(content))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "header cut off": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "values cut off": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "no safetensors": lambda path: path.write_bytes(b"\xff" * 200),
    "hole": hole,
    "other shapes": lambda path: rewritten(path, lambda old: old | {"vh": old["vh"].T.contiguous()}),
    "rank too low": lambda path: rewritten(
        path, lambda old: {"u": old["u"][:, :3].contiguous(), "s": old["s"][:3], "vh": old["vh"][:3]}
    ),
    "other type": lambda path: rewritten(path, lambda old: {name: tensor.double() for name, tensor in old.items()}),
    "missing": lambda path: rewritten(path, lambda old: {"u": old["u"], "s": old["s"]}),
    "not numbers": lambda path: rewritten(path, lambda old: old | {"s": old["s"] * float("nan")}),
    "of another weight": lambda path: save_file(vars(decomposed(torch.ones(9, 5))), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(network, tmp_path, counted, damage):
    expected = prepared(network, ["3.weight"], Cache(tmp_path))["3.weight"]
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    del expected
    DAMAGE[damage](path)
    assert path.read_bytes() != whole
    made = prepared(network, ["3.weight"], Cache(tmp_path))["3.weight"]
    assert counted == ["3.weight"] * 2
    assert path.read_bytes() == whole
    torch.testing.assert_close(dense(made).float(), network[3].weight.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_save_leaves_nothing_to_be_read(network, tmp_path, monkeypatch, error):
    def half(tensors, path):
        Path(path).write_bytes(b"half")
        raise error("no space left")

    monkeypatch.setattr(decompositions, "save_file", half)
    with pytest.raises(error, match="no space left"):
        prepared(network, ["2.weight"], Cache(tmp_path))
    assert not files(tmp_path)
    assert not files(tmp_path, "*.partial")
    monkeypatch.undo()
    assert prepared(network, ["2.weight"], Cache(tmp_path)).keys() == {"2.weight"}


def test_workers_share_the_work(network, tmp_path, monkeypatch):
    made, both_began = [], threading.Barrier(2)

    def slowly(weight, name):
        own = threading.get_ident()
        if own not in {worker for _, worker in made}:
            made.append((name, own))
            both_began.wait(timeout=60)  # a worker that is started late is waited for
        else:
            made.append((name, own))
        time.sleep(0.05)
        return decomposed(weight, name)

    monkeypatch.setattr(decompositions, "decomposed", slowly)
    both = [Decompositions.start(network, NAMES, Cache(tmp_path)) for _ in range(2)]
    first, second = (one.wait() for one in both)
    assert sorted(name for name, _ in made) == sorted(NAMES), "each weight once"
    assert len({worker for _, worker in made}) == 2, "and not all by the same worker"
    assert all(same(first[name], second[name]) for name in NAMES)


def test_what_another_worker_is_making_is_waited_for(network, tmp_path, counted):
    prepared(network, ["2.weight"], Cache(tmp_path))
    (path,) = files(tmp_path)
    content = path.read_bytes()
    path.unlink()
    del counted[:]
    with FileLock(path.with_suffix(".lock")):
        waiting = Decompositions.start(network, ["2.weight", "3.weight"], Cache(tmp_path))
        deadline = time.monotonic() + 10
        while counted != ["3.weight"] and time.monotonic() < deadline:
            time.sleep(0.01)
        path.write_bytes(content)
    assert waiting.wait().keys() == {"2.weight", "3.weight"}
    assert counted == ["3.weight"]


def test_a_thread_of_its_own_does_the_work_with_the_starters_number_of_torch_threads(network, monkeypatch):
    here, told = threading.current_thread(), []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: told.append((count, threading.current_thread())))
    started = Decompositions.start(network, NAMES, None)
    assert set(started.wait()) == set(NAMES)
    ((count, thread),) = told
    assert count == 3
    assert thread is not here


def test_an_error_in_the_thread_is_raised_where_it_is_waited_for(network):
    with torch.no_grad():
        network[2].weight.fill_(float("nan"))
    started = Decompositions.start(network, NAMES, None)
    with pytest.raises(ModelError, match=r"2\.weight holds NaN"):
        started.wait()
    with pytest.raises(ModelError, match=r"2\.weight holds NaN"), Decompositions.start(network, NAMES, None):
        pass


def test_an_error_in_the_context_stops_the_work(network, tmp_path, monkeypatch):
    begun, failed, made = threading.Event(), threading.Event(), []

    def slowly(weight, name):
        made.append(name)
        begun.set()
        failed.wait(10)
        return decomposed(weight, name)

    monkeypatch.setattr(decompositions, "decomposed", slowly)
    started = Decompositions.start(network, NAMES, Cache(tmp_path))

    def fail():
        with started:
            begun.wait(10)
            raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        fail()
    failed.set()
    with pytest.raises(MemControlError, match="stopped with 3 of 4 weights to go"):
        started.wait()
    assert made == [NAMES[0]]


def test_nothing_to_decompose_writes_nothing(network, tmp_path):
    with Decompositions.start(network, (), Cache(tmp_path / "cache")) as started:
        pass
    assert started.wait() == {}
    assert not (tmp_path / "cache").exists()

"""Tensors as views of one: values, layout and gradients stay as they were, and each gets its own memory back."""

import torch
from safetensors.torch import load_file, save_file

from memcontrol.finetuning.flat import FlatTensors, flat


def parameters() -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (7,), (4, 3, 3, 3), (1,)]
    made = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    made[2].data = made[2].data.contiguous(memory_format=torch.channels_last)
    return made


def test_values_and_layout_stay_while_the_memory_is_one():
    own = parameters()
    before, strides = [one.detach().clone() for one in own], [one.stride() for one in own]
    part = FlatTensors(own)
    assert all(torch.equal(one, kept) for one, kept in zip(own, before, strict=True))
    assert [one.stride() for one in own] == strides
    assert len({one.untyped_storage().data_ptr() for one in own}) == 1
    assert all(one.data_ptr() % 64 == part.joined.data_ptr() % 64 for one in own)
    with torch.no_grad():
        part.joined.mul_(2)
    assert all(torch.equal(one, 2 * kept) for one, kept in zip(own, before, strict=True))


def test_views_of_one_memory_can_be_saved_as_safetensors(tmp_path):
    own = [one for one in parameters() if one.is_contiguous()]
    part = FlatTensors(own)
    save_file({str(place): one.detach() for place, one in enumerate(own)}, tmp_path / "held.safetensors")
    read = load_file(tmp_path / "held.safetensors")
    assert all(torch.equal(read[str(place)], one) for place, one in enumerate(own))
    part.release()


def test_release_gives_each_tensor_its_own_memory_and_layout():
    own = parameters()
    before, strides = [one.detach().clone() for one in own], [one.stride() for one in own]
    part = FlatTensors(own)
    part.release()
    with torch.no_grad():
        part.joined.zero_()
    assert all(torch.equal(one, kept) for one, kept in zip(own, before, strict=True))
    assert [one.stride() for one in own] == strides
    assert len({one.untyped_storage().data_ptr() for one in own}) == len(own)


def test_the_last_to_hold_tensors_has_their_values_and_the_first_does_not_take_them_away():
    own = parameters()
    first, second = FlatTensors(own), FlatTensors(own)
    with torch.no_grad():
        own[0].fill_(3.0)
    first.release()
    assert own[0].eq(3.0).all()
    first.hold()
    with torch.no_grad():
        second.joined.zero_()
        first.joined.add_(1.0)
    assert own[0].eq(4.0).all()


def test_gradients_are_gathered_and_those_that_are_not_there_are_zero():
    own = parameters()
    part = FlatTensors(own)
    part.joined.grad.fill_(9.0)
    own[0].grad, own[2].grad = torch.ones(3, 5), torch.arange(108.0).reshape(4, 3, 3, 3)
    part.gather()
    gradients = list(part.views(part.joined.grad))
    assert torch.equal(gradients[0], own[0].grad)
    assert torch.equal(gradients[2], own[2].grad)
    assert gradients[2].stride() == own[2].stride()
    assert not gradients[1].any()
    assert not gradients[3].any()


def test_each_data_type_has_a_tensor_of_its_own():
    own = parameters()
    own[1].data = own[1].data.double()
    parts = flat(own)
    assert [part.joined.dtype for part in parts] == [torch.float32, torch.float64]
    assert [one is own[1] for one in parts[1].parameters] == [True]
    assert len(parts[0].parameters) == 3

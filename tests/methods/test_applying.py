"""A mask applied to a U-Net trains what it says in anyone's loop, on any device, and folds into plain weights."""

import pytest
import torch
from mixed_masks import PARTS, disturb, mask_of, predicted

from memcontrol.errors import ModelError
from memcontrol.methods.applying import fold
from memcontrol.pipeline import load_unet

METHODS = tuple(PARTS)


@pytest.fixture
def unet():
    return load_unet("tiny")


def state(unet):
    return {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}


def one_step(unet, parameters):
    """A step of a plain training loop."""
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(2, 8, 8, 8, generator=generator), torch.randn(2, 5, 48, generator=generator)
    kind = unet.conv_in.weight.dtype
    optimizer = torch.optim.SGD(parameters, lr=10.0)
    unet(latents.to(kind), torch.tensor([3, 500]), text.to(kind)).sample.float().square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_folds(unet, method):
    mask, before = mask_of(unet, method), state(unet)
    flags = [parameter.requires_grad for parameter in unet.parameters()]
    start, mode = predicted(unet), unet.training
    parameters = mask.apply(unet)
    assert sum(parameter.numel() for parameter in parameters) == mask.trainable.numel
    assert {id(parameter) for parameter in unet.parameters() if parameter.requires_grad} == set(map(id, parameters))
    torch.testing.assert_close(predicted(unet), start, rtol=0, atol=1e-5)
    for _ in range(2):  # LoRA's first factor moves from the second step on
        one_step(unet, parameters)
    attached = predicted(unet)
    fold(unet)
    torch.testing.assert_close(predicted(unet), attached, rtol=0, atol=1e-5)
    assert (attached - start).abs().max() > 1e-4
    after = state(unet)
    assert list(after) == list(before)
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    named = set(mask.trainable_names())
    assert moved
    assert {name.replace(".bias", ".weight") for name in moved} <= {name.replace(".bias", ".weight") for name in named}
    assert [parameter.requires_grad for parameter in unet.parameters()] == flags
    assert unet.training == mode


def test_parameters_are_given_in_the_u_nets_order(unet):
    parameters = mask_of(unet, *METHODS).apply(unet)
    places = {id(parameter): place for place, parameter in enumerate(unet.parameters())}
    order = [places[id(parameter)] for parameter in parameters]
    assert order == sorted(order)


def test_a_folded_u_net_is_saved_and_loaded_by_stock_diffusers(unet, tmp_path):
    mask = mask_of(unet, *METHODS)
    disturb(mask.apply(unet))
    fold(unet)
    unet.save_pretrained(tmp_path)
    assert torch.equal(predicted(type(unet).from_pretrained(tmp_path)), predicted(unet))


def test_tuning_in_a_with_block_restores_the_u_net(unet):
    before = state(unet)
    with mask_of(unet, *METHODS).tuned(unet) as tuning:
        disturb(tuning.parameters.values())
    after = state(unet)
    assert list(after) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize("method", METHODS)
def test_an_applied_mask_moves_along_with_the_u_net(unet, method):
    """To the device that holds no numbers, since a forward pass fails there too where something stayed behind."""
    mask_of(unet, method).apply(unet)
    unet.to("meta")
    for size in (1, 64):  # both of SV-DIFF's forward passes
        sample = unet(
            torch.randn(size, 8, 8, 8, device="meta"),
            torch.zeros(size, device="meta"),
            torch.randn(size, 5, 48, device="meta"),
        ).sample
        assert sample.device.type == "meta"


@pytest.mark.parametrize("method", METHODS)
def test_a_half_precision_u_net_trains_and_stays_in_half_precision(unet, method):
    unet.to(torch.bfloat16)
    parameters = mask_of(unet, method).apply(unet)
    assert {parameter.dtype for parameter in parameters} == {torch.bfloat16 if method == "full" else torch.float32}
    one_step(unet, parameters)
    assert predicted(unet).dtype == torch.bfloat16
    fold(unet)
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}
    assert predicted(unet).isfinite().all()


def test_a_second_mask_is_refused_until_the_first_is_folded(unet):
    mask = mask_of(unet, "svdiff")
    mask.apply(unet)
    with pytest.raises(ModelError, match=r"applied to this U-Net already: call memcontrol\.fold"):
        mask.apply(unet)
    fold(unet)
    mask.apply(unet)


def test_folding_what_nothing_was_applied_to_is_refused(unet):
    with pytest.raises(ModelError, match="no mask is applied to this UNet2DConditionModel: give the U-Net that apply"):
        fold(unet)

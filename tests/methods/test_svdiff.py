"""Shifts of singular values do what the definition says, however a layer applies them, and leave nothing behind."""

from contextlib import nullcontext

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from memcontrol.cache import Cache
from memcontrol.config import validated
from memcontrol.errors import SpaceError
from memcontrol.groups import ParameterGroup, parameter_groups, weights_fingerprint
from memcontrol.mask import Mask
from memcontrol.methods import METHODS, Resources, decompositions, svdiff, tuned, tuned_numel
from memcontrol.methods.svdiff import factored_is_cheaper
from memcontrol.pipeline import load_pipeline, load_unet
from memcontrol.releasing import finetune
from memcontrol.study.trial import Laboratory

LAYERS = {
    "wide": lambda: nn.Linear(7, 4),
    "tall": lambda: nn.Linear(4, 9, bias=False),
    "square": lambda: nn.Linear(5, 5),
    "conv": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), bias=False),
    "dilated": lambda: nn.Conv2d(3, 40, 3, dilation=2, padding="same"),
    "circular": lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "layer norm": lambda: nn.LayerNorm(6),
    "group norm": lambda: nn.GroupNorm(2, 4),
}
FACTORED = [name for name in LAYERS if name not in ("grouped", "layer norm", "group norm")]


def shifted(*names):
    return ParameterGroup("shifts", "svdiff", names, 0)


def shiftable(unet):
    """Every weight that the method takes."""
    kinds = nn.Conv2d | nn.Linear | nn.GroupNorm | nn.LayerNorm
    return tuple(f"{place}.weight" for place, module in unet.named_modules() if isinstance(module, kinds))


def shake(parameters, scale=0.05):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter))


@pytest.fixture(params=["factored", "rebuilt"])
def form(request, monkeypatch):
    monkeypatch.setattr(svdiff, "factored_is_cheaper", lambda *_: request.param == "factored")
    return request.param


@pytest.fixture
def layer(request):
    torch.manual_seed(0)
    network = nn.Sequential(LAYERS[request.param]())
    if "norm" in request.param:
        nn.init.normal_(network[0].weight)
    return network.requires_grad_(False)


@pytest.fixture
def signal(layer):
    sizes = {nn.Linear: "in_features", nn.Conv2d: "in_channels", nn.GroupNorm: "num_channels"}
    width = getattr(layer[0], sizes.get(type(layer[0]), ""), 6)
    shape = (2, width, 8, 7) if isinstance(layer[0], nn.Conv2d | nn.GroupNorm) else (2, 5, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def shift(layer):
    """Of the size of the singular values, so that some become negative before the rectifier."""
    matrix = as_matrix(layer[0].weight)
    size = torch.linalg.svdvals(matrix).mean()
    shift = size * torch.randn(min(matrix.shape), generator=torch.Generator().manual_seed(3))
    shift[-1] = -2 * size if len(shift) > 1 else shift[-1]
    return shift


def as_matrix(weight):
    return (weight[None] if weight.ndim == 1 else weight.flatten(1)).detach()


def by_definition(weight, shift):
    """U diag(relu(S + shift)) V^T of the matrix, with a dense diagonal matrix and in float64."""
    matrix = as_matrix(weight).double()
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u @ torch.diag(torch.relu(s + shift.double())) @ vh).reshape(weight.shape)


def plain_output(layer, weight, signal):
    """The layer with another weight, by torch's own functions."""
    return torch.func.functional_call(layer, {"0.weight": weight}, signal)


@pytest.mark.parametrize("layer", LAYERS, indirect=True)
def test_a_layer_computes_with_the_weight_of_the_definition(layer, signal, shift, form):
    expected = plain_output(layer, by_definition(layer[0].weight, shift).float(), signal)
    before = layer(signal)
    with tuned(layer, [shifted("0.weight")]) as tuning:
        with torch.no_grad():
            tuning.parameters["0.weight.shift"].copy_(shift)
        got = layer(signal)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer(signal[:1]), expected[:1], atol=1e-5, rtol=1e-5)
        assert (got - before).abs().max() > 1e-2
    assert torch.equal(layer(signal), before)


@pytest.mark.parametrize("layer", LAYERS, indirect=True)
def test_gradients_are_those_of_the_definition(layer, signal, shift, form):
    exact, reference = signal.double().requires_grad_(), shift.double().requires_grad_()
    plain_output(layer.double(), by_definition(layer[0].weight, reference), exact).square().sum().backward()
    layer.float()
    signal.requires_grad_()
    with tuned(layer, [shifted("0.weight")]) as tuning:
        parameter = tuning.parameters["0.weight.shift"]
        with torch.no_grad():
            parameter.copy_(shift)
        layer(signal).square().sum().backward()
        torch.testing.assert_close(parameter.grad, reference.grad.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(signal.grad, exact.grad.float(), atol=1e-4, rtol=1e-4)
    assert all(tensor.grad is None for tensor in layer.parameters())


@pytest.mark.parametrize("layer", FACTORED, indirect=True)
def test_an_image_without_a_batch_is_taken_as_well(layer, signal, form):
    with tuned(layer, [shifted("0.weight")]):
        torch.testing.assert_close(layer(signal[0]), layer(signal)[0])


@pytest.mark.parametrize("layer", FACTORED, indirect=True)
def test_the_factored_form_never_builds_the_weight(layer, signal, monkeypatch):
    def refuse(*_):
        raise AssertionError("rebuilt")

    monkeypatch.setattr(svdiff, "factored_is_cheaper", lambda *_: True)
    with tuned(layer, [shifted("0.weight")]):
        monkeypatch.setattr(svdiff.SpectralShift, "forward", refuse)
        layer(signal)
        monkeypatch.setattr(svdiff, "factored_is_cheaper", lambda *_: False)
        with pytest.raises(AssertionError, match="rebuilt"):
            layer(signal)


def test_the_cheaper_form_is_what_was_measured():
    """By experiments/sd15_smoke/forms.py, where the slower form took at least 1.14 times as long as the other."""
    measured = {
        (320, 320, 98): True,
        (320, 320, 784): False,
        (640, 640, 196): True,
        (640, 640, 784): False,
        (1280, 1280, 49): True,
        (1280, 1280, 392): True,
        (1280, 1280, 1568): False,
        (2560, 320, 196): True,
        (2560, 320, 784): False,
        (320, 768, 77): True,
        (320, 768, 784): False,
        (320, 9 * 320, 196): True,
        (320, 9 * 320, 3136): False,
        (1280, 9 * 1280, 49): True,
        (4, 9 * 320, 784): False,
    }
    assert {sizes: factored_is_cheaper(*sizes) for sizes in measured} == measured


@pytest.mark.parametrize(
    ("module", "shape", "sizes"),
    [
        (nn.Linear(6, 4), (2, 5, 6), (4, 6, 10)),
        (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 8, 6), (4, 27, 96)),
        (nn.Conv2d(3, 4, (1, 3), stride=(2, 1)), (2, 3, 8, 6), (4, 9, 48)),
    ],
)
def test_the_form_is_chosen_by_the_sizes_of_the_call(module, shape, sizes, monkeypatch):
    asked = []
    monkeypatch.setattr(svdiff, "factored_is_cheaper", lambda *sizes: bool(asked.append(sizes)))
    with tuned(nn.Sequential(module), [shifted("0.weight")]):
        module(torch.zeros(shape))
    assert asked == [sizes]


def test_a_layer_with_a_forward_pass_of_its_own_keeps_it():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    network = nn.Sequential(Doubled(4, 4), nn.Linear(4, 4))
    wrapped = network[1].forward
    network[1].forward = lambda input: wrapped(input) + 1
    own, x = network[1].forward, torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    before = network(x)
    with tuned(network, [shifted("0.weight", "1.weight")]) as tuning:
        torch.testing.assert_close(network(x), before)
        shake(tuning.parameters, 0.5)
        changed = network(x)
        assert not torch.allclose(changed, before)
        with tuning.folded():
            assert torch.equal(network(x), changed)
    assert network[1].forward is own
    assert torch.equal(network(x), before)


def test_a_zero_weight_can_leave_zero(form):
    network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    for module in network:
        nn.init.zeros_(module.weight)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with tuned(network, [shifted("0.weight", "1.weight")]) as tuning:
        (network[0](x).sum() + network[1](x[:, :3]).square().sum() + network[1].weight.sum()).backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in tuning.parameters.values())


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_a_small_shift_is_felt_in_half_precision(form, kind, tolerance):
    """One thousandth of the value, less than bfloat16 tells from it; the average over many tokens must move."""
    network = nn.Sequential(nn.Linear(16, 16, bias=False))
    torch.nn.init.orthogonal_(network[0].weight, 8.0, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(1))
    with tuned(network, [shifted("0.weight")]) as tuning, torch.autocast("cpu", kind, enabled=kind != torch.float32):
        plain = network(x).float()
        with torch.no_grad():
            tuning.parameters["0.weight.shift"].fill_(0.08)
        moved = network(x).float()
    assert ((moved * plain).sum() / plain.square().sum()).item() == pytest.approx(1.01, abs=tolerance * 0.1)


def test_the_plain_weights_are_those_that_layers_have(unet, resources):
    names = shiftable(unet)
    with tuned(unet, [shifted(*names)], resources) as tuning:
        shake(tuning.parameters, 0.3)
        own = {name: unet.get_submodule(name.rpartition(".")[0]).weight for name in names}
        made = tuning.tensors()
        assert made.keys() == own.keys()
        gradients = []
        for weights in (own, made):
            total = sum((weights[name].cos() * (place + 1)).sum() for place, name in enumerate(names))
            gradients.append(torch.autograd.grad(total, list(tuning.parameters.values())))
        for name in names:
            torch.testing.assert_close(made[name], own[name], rtol=1e-5, atol=1e-5)
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        with tuning.folded():
            for name in names:
                torch.testing.assert_close(unet.get_parameter(name).data, made[name], rtol=1e-5, atol=1e-5)


def test_half_precision_weights_have_shifts_in_full(form):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(2), nn.Linear(36, 5)).to(torch.bfloat16)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    before, names = network(x), shiftable(network)
    with tuned(network, [shifted(*names)]) as tuning:
        torch.testing.assert_close(network(x), before, atol=0.03, rtol=0)
        assert {parameter.dtype for parameter in tuning.parameters.values()} == {torch.float32}
        shake(tuning.parameters, 0.3)
        changed = network(x)
        assert changed.dtype == torch.bfloat16
        changed.float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in tuning.parameters.values())
        with tuning.folded():
            assert network[0].weight.dtype == torch.bfloat16
            torch.testing.assert_close(network(x), changed, atol=0.06, rtol=0)
    assert torch.equal(network(x), before)


def small():
    """A U-Net with what the shipped ones lack: linear projections, and a level without attention."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 16, 24),
        layers_per_block=1,
        cross_attention_dim=48,
        attention_head_dim=2,
        norm_num_groups=8,
        use_linear_projection=True,
    )


@pytest.fixture(scope="module", params=["tiny", "small"])
def unet(request):
    return (load_unet("tiny") if request.param == "tiny" else small()).eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(2, 24, 48, generator=generator)
    return torch.randn(2, 8, 8, 8, generator=generator), torch.tensor([10, 700]), text


@pytest.fixture(scope="module")
def resources(unet, tmp_path_factory):
    """The decompositions of the whole U-Net, made once."""
    cache = Cache(tmp_path_factory.mktemp("decompositions"))
    return Resources(cache, decompositions=decompositions.prepared(unet, shiftable(unet), cache))


@torch.no_grad()
def output(unet, inputs):
    return unet(*inputs, return_dict=False)[0]


def bits(unet):
    return {name: tensor.detach().numpy().tobytes() for name, tensor in unet.state_dict().items()}


def state(unet):
    """All that must be the same afterwards: order, names, objects, classes, and what instances have of their own."""
    parameters = [(name, id(parameter), parameter.data_ptr()) for name, parameter in unet.named_parameters()]
    return parameters, [(name, type(module), sorted(vars(module))) for name, module in unet.named_modules()], bits(unet)


@pytest.mark.usefixtures("form")
def test_an_untrained_shift_changes_nothing(unet, inputs, resources):
    before = output(unet, inputs)
    with tuned(unet, [shifted(*shiftable(unet))], resources) as tuning:
        got = output(unet, inputs)
        assert not any(parameter.any() for parameter in tuning.parameters.values())
    assert torch.equal(got, before)


@pytest.mark.parametrize("model", ["tiny", "tiny-sd"])
@pytest.mark.parametrize("batch", [1, 16])
def test_shipped_models_are_untouched_by_no_shift_and_fold_what_is_shifted(model, batch, cache_folder):
    unet = load_unet(model).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    size, width = unet.config["sample_size"], unet.config["cross_attention_dim"]
    latents = torch.randn(batch, unet.config["in_channels"], size, size, generator=generator)
    text = torch.randn(batch, 24, width, generator=generator)
    inputs = (latents, torch.randint(1000, (batch,), generator=generator), text)
    with torch.no_grad():
        before = output(unet, inputs)
        with tuned(unet, [shifted(*shiftable(unet))], Resources(Cache(cache_folder))) as tuning:
            assert torch.equal(output(unet, inputs), before)
            shake(tuning.parameters)
            changed = output(unet, inputs)
            with tuning.folded():
                torch.testing.assert_close(output(unet, inputs), changed, atol=1e-5, rtol=0)
    assert not torch.allclose(changed, before, atol=1e-2)


def test_shifts_alone_are_trained_and_are_the_unets_own_parameters(unet, inputs, resources):
    """So that several processes average their gradients."""
    names = shiftable(unet)
    numel = tuned_numel(shifted(*names), unet)
    with tuned(unet, [shifted(*names[:3]), shifted(*names[3:])], resources) as tuning:
        assert sum(parameter.numel() for parameter in tuning.parameters.values()) == numel
        asking = {parameter for parameter in unet.parameters() if parameter.requires_grad}
        assert asking == set(tuning.parameters.values())
        assert tuning.parameters.keys() == {f"{name}.shift" for name in names}
        assert not list(unet.named_buffers()), "several processes would send them to each other at every step"
        unet(*inputs, return_dict=False)[0].square().mean().backward()
        felt = [name for name, parameter in tuning.parameters.items() if parameter.grad.abs().max() > 0]
        assert len(felt) == len(names)
        assert {parameter for parameter in unet.parameters() if parameter.grad is not None} == asking


def test_folded_layers_are_plain_and_training_goes_on_afterwards(unet, inputs, resources):
    names, untouched = shiftable(unet), state(unet)
    with tuned(unet, [shifted(*names)], resources) as tuning:
        shake(tuning.parameters)
        changed = output(unet, inputs)
        with tuning.folded():
            folded = output(unet, inputs)
            (_, modules, values), (_, plain, before) = state(unet), untouched
            assert modules == plain
            assert list(values) == list(before)
            assert {name for name, value in values.items() if value != before[name]} == set(names)
            assert not any(parameter.requires_grad for parameter in unet.parameters())
        torch.testing.assert_close(folded, changed, atol=1e-5, rtol=0)
        assert torch.equal(output(unet, inputs), changed)
        assert {p for p in unet.parameters() if p.requires_grad} == set(tuning.parameters.values())
        shake(tuning.parameters, 0.01)
        with tuning.folded():
            assert not torch.equal(output(unet, inputs), folded)


@pytest.mark.parametrize(
    ("error", "folding"), [(None, False), (RuntimeError, False), (KeyboardInterrupt, True), (RuntimeError, True)]
)
def test_nothing_is_left_behind(unet, inputs, resources, error, folding):
    before, image = state(unet), output(unet, inputs)
    try:
        with tuned(unet, [shifted(*shiftable(unet))], resources) as tuning:
            shake(tuning.parameters, float("nan"))
            unet(*inputs)[0].sum().backward()
            with tuning.folded() if folding else nullcontext():
                assert bits(unet).keys() == before[2].keys() or not folding
                if error:
                    raise error
    except (RuntimeError, KeyboardInterrupt) as raised:
        assert type(raised) is error  # noqa: PT017 - both ways out are tested alike
    assert state(unet) == before
    assert torch.equal(output(unet, inputs), image)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in unet.parameters())


def test_other_methods_go_along(unet, inputs, resources):
    """All biases in full, those of the shifted layers and norms among them, and factors on a few layers' outputs."""
    scaled = tuple(name for name in shiftable(unet) if name.endswith("to_q.weight"))
    names = tuple(name for name in shiftable(unet) if name not in scaled)
    biases = tuple(name for name, _ in unet.named_parameters() if name.endswith(".bias"))
    groups = [shifted(*names), ParameterGroup("biases", "full", biases, 0), ParameterGroup("q", "difffit", scaled, 0)]
    before = state(unet)
    with tuned(unet, groups, resources) as tuning:
        assert tuning.parameters.keys() > {*biases, *(f"{name}.shift" for name in names)}
        unet(*inputs)[0].square().mean().backward()
        assert all(parameter.grad is not None for parameter in tuning.parameters.values())
        shake(tuning.parameters)
        changed, values = output(unet, inputs), {name: tuning.parameters[name].detach().clone() for name in biases}
        with tuning.folded():
            torch.testing.assert_close(output(unet, inputs), changed, atol=2e-5, rtol=0)
            assert all(torch.equal(unet.get_parameter(name), value) for name, value in values.items())
    assert state(unet) == before


def test_half_precision_training_is_possible(unet, inputs, resources, form):
    plain = output(unet, inputs)
    with tuned(unet, [shifted(*shiftable(unet))], resources) as tuning:
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(*inputs, return_dict=False)[0]
        predicted.float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in tuning.parameters.values())
        assert all(parameter.grad.dtype == torch.float32 for parameter in tuning.parameters.values())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        usual = unet(*inputs, return_dict=False)[0]
    assert predicted.dtype == usual.dtype
    assert (predicted - plain).square().mean() < 4 * (usual - plain).square().mean()


def test_the_published_counts():
    """Dutt et al. 2024 on Stable Diffusion 1.5; works without weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    names = shiftable(unet)
    assert len(names) == 391
    assert tuned_numel(shifted(*names), unet) == 222_805


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.table = nn.Embedding(3, 2)
        self.norm = nn.LayerNorm(2, elementwise_affine=False)
        self.upwards = nn.ConvTranspose2d(2, 2, 3)
        self.line = nn.Conv1d(2, 2, 3)
        self.scale = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layer.bias", "the bias of a Linear"),
        ("table.weight", "the weight of a Embedding"),
        ("norm.weight", "the weight of a LayerNorm, which has none"),
        ("upwards.weight", "the weight of a ConvTranspose2d"),
        ("line.weight", "the weight of a Conv1d"),
        ("scale", "the scale of a Odd"),
    ],
)
def test_what_has_no_spectrum_to_shift_is_refused_by_name(name, kind):
    odd = Odd()
    before = state(odd)
    with pytest.raises(SpaceError, match=f"{name} is {kind}; exclude it"):
        METHODS["svdiff"].numel(odd, name, {})
    with pytest.raises(SpaceError, match=name), tuned(odd, [shifted("layer.weight", name)]):
        pass
    assert state(odd) == before


SPACE = """
schema: memcontrol/search-space@1
name: shifts
learning_rate: {low: 1.0e-3, high: 1.0e-2}
parts:
  - {method: svdiff, select: ["*.attentions.*.weight"], name: attention}
  - {method: full, select: ["*.resnets.*"], name: resnets}
  - {method: svdiff, select: ["conv_*.weight"], name: ends, always: true}
"""


@pytest.fixture(scope="module")
def shifting(small_config, cache_folder, tmp_path_factory):
    """A laboratory whose space shifts singular values of some groups."""
    path = tmp_path_factory.mktemp("space") / "shifts.yaml"
    path.write_text(SPACE)
    config = validated(small_config.model_dump(mode="json") | {"space": str(path)}, where="tests")
    return Laboratory(config, cache=Cache(cache_folder), device="cpu")


def test_a_laboratory_decomposes_beforehand_what_its_space_can_shift(shifting, monkeypatch):
    groups = {group.name: group for group in (*shifting.candidates.groups, *shifting.candidates.always)}
    wanted = groups["attention"].parameters + groups["ends"].parameters
    assert shifting.resources.decompositions.keys() == set(wanted)
    whole = weights_fingerprint(shifting.frozen.unet)
    monkeypatch.setattr(decompositions, "fingerprint", pytest.fail)
    monkeypatch.setattr(torch.linalg, "svd", pytest.fail)
    chosen = (groups["ends"], groups["attention"])
    evaluation = shifting.evaluate(chosen, 5e-3, 3, lambda *_: None)
    assert evaluation.steps == 3
    assert weights_fingerprint(shifting.frozen.unet) == whole


def test_what_is_released_holds_the_shifts_in_plain_weights(shifting, tmp_path):
    unet = shifting.frozen.unet
    numel = sum(parameter.numel() for parameter in unet.parameters())
    groups = parameter_groups(shifting.space, unet)
    mask = Mask.build(shifting.space, groups, "101", model=shifting.model, unet_numel=numel, learning_rate=5e-3)
    config = shifting.config
    out = finetune(mask, config.data, tmp_path / "released", tuning=config.tuning)
    before, after = unet.state_dict(), load_pipeline(str(out), cache=Cache(tmp_path)).unet.state_dict()
    assert list(after) == list(before)
    assert {name for name in before if not torch.equal(after[name], before[name])} == set(mask.trainable_names())

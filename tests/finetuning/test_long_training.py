"""What a full-length training adds to the inner loop, against computations that do not use it."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from pydantic import ValidationError

from memcontrol.config import DataConfig, RunConfig, TuningConfig
from memcontrol.data import load_dataset
from memcontrol.errors import MemControlError, RunError
from memcontrol.finetuning import (
    TrainingState,
    finetune,
    finetune_pipeline,
    learning_rate_factor,
    snr_weights,
    training_batches,
)
from memcontrol.finetuning.checkpoints import Checkpoints
from memcontrol.groups import ParameterGroup
from memcontrol.methods import tuned
from memcontrol.mitigations.plan import MitigationPlan

MASK = ("conv_in.weight", "conv_norm_out.weight", "conv_out.bias")
CONFIG = TuningConfig(steps=4, batch=6, warmup=0.25, ema_decay=0.6)


@pytest.fixture(scope="module")
def dataset(tiny):
    config = DataConfig(train_size=8, fidelity=8, copying=8, confirmation=4)
    return load_dataset(config, resolution=tiny.resolution, seed=0)


def groups(method="full", names=MASK):
    return [ParameterGroup("chosen", method, tuple(names), 0)]


def trained(tiny, dataset, *, config=CONFIG, mitigations=(), state=None, chosen=None, on_step=lambda _: None):
    """Losses, kept samples and final tensors."""
    batches = training_batches(tiny, dataset, config, seed=3)
    accelerator = Accelerator(cpu=True)
    with tuned(tiny.unet, chosen or groups()) as tuning:
        steps = MitigationPlan.of(mitigations).steps(
            tiny,
            dataset,
            tuning.parameters,
            batches,
            learning_rate=1e-2,
            config=config,
            accelerator=accelerator,
            state=state,
        )
        found = []
        for step in steps:
            found.append((step.number, step.loss, step.kept))
            on_step(step.number)
        tensors = {name: tensor.detach().clone() for name, tensor in tuning.parameters.items()}
        with step.averaged():
            tensors |= {f"{name} average": tensor.detach().clone() for name, tensor in tuning.parameters.items()}
    return found, tensors


def assert_near(first, second, **tolerance):
    assert [(number, kept) for number, _, kept in first[0]] == [(number, kept) for number, _, kept in second[0]]
    losses = [[loss for _, loss, _ in found] for found in (first[0], second[0])]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    for name, tensor in first[1].items():
        torch.testing.assert_close(tensor, second[1][name], **tolerance)


@pytest.fixture(scope="module", params=[(), ("threshold:share=0.4,remembered=6",)], ids=["plain", "threshold"])
def whole(request, tiny, dataset):
    """Mitigations, and what a training under them on undivided batches found."""
    return request.param, trained(tiny, dataset, mitigations=request.param)


@pytest.mark.parametrize("number", [2, 4])
def test_micro_batches_train_like_the_whole_batch(tiny, dataset, number, whole):
    mitigations, whole = whole
    config = CONFIG.model_copy(update={"accumulation": number})
    parts = trained(tiny, dataset, mitigations=mitigations, config=config)
    assert_near(whole, parts, rtol=1e-2, atol=1e-4)
    if mitigations:
        assert min(kept for _, _, kept in whole[0]) < 6, "nothing was dropped, so nothing was tested"


def test_micro_batches_are_asked_for_one_after_another(tiny, dataset):
    sizes = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        trained(tiny, dataset, config=CONFIG.model_copy(update={"accumulation": 4, "steps": 1}))
    finally:
        hook.remove()
    assert sizes == [1, 2, 1, 2]


@pytest.mark.parametrize(("images", "sizes"), [(6, [1, 2, 1, 2]), (4, [1] * 4), (3, [1] * 3), (1, [1]), (0, [0])])
def test_a_batch_shorter_than_its_number_of_micro_batches_has_none_that_is_empty(tiny, dataset, images, sizes):
    batch = training_batches(tiny, dataset, CONFIG, seed=3).at(0).at(slice(0, images))
    parts = batch.parts(4)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate([part.positions for part in parts]).tolist() == batch.positions.tolist()


def test_more_micro_batches_than_images_are_refused(tiny, dataset):
    with pytest.raises(MemControlError, match="accumulation 7 of 6 images a step: each micro-batch needs an image"):
        trained(tiny, dataset, config=CONFIG.model_copy(update={"accumulation": 7}))


def test_gradient_checkpointing_trains_alike_computes_again_and_is_switched_off_afterwards(tiny, dataset):
    calls = []
    block = tiny.unet.down_blocks[0].resnets[0]
    hook = block.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    try:
        plain = trained(tiny, dataset)
        once = len(calls)
        again = trained(tiny, dataset, config=CONFIG.model_copy(update={"gradient_checkpointing": True}))
    finally:
        hook.remove()
    assert len(calls) == once + 2 * once
    assert not tiny.unet.is_gradient_checkpointing
    assert_near(plain, again, rtol=1e-3, atol=1e-5)


def test_a_network_without_gradient_checkpointing_is_refused(tiny, dataset):
    network = torch.nn.Linear(2, 2)
    config = CONFIG.model_copy(update={"gradient_checkpointing": True})
    steps = finetune(
        network,
        dict(network.named_parameters()),
        training_batches(tiny, dataset, config, seed=0),
        learning_rate=1e-3,
        config=config,
        scheduler_config=tiny.scheduler_config,
        accelerator=Accelerator(cpu=True),
    )
    with pytest.raises(MemControlError, match="a Linear has no gradient checkpointing: leave it out"):
        next(steps)


@pytest.mark.parametrize("option", [{"accumulation": 2}, {"gradient_checkpointing": True}])
def test_differential_privacy_refuses_what_divides_its_backward_pass(tiny, dataset, option):
    pytest.importorskip("opacus")
    with pytest.raises(MemControlError, match=f"differential privacy: {next(iter(option))} .*: expected none"):
        trained(tiny, dataset, mitigations=("dp-sgd",), config=CONFIG.model_copy(update=option))


# Min-SNR weights


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction):
    """Cumulative products of the betas by NumPy, in float64."""
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=prediction)
    betas = np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2
    alpha = np.cumprod(1 - betas)
    snr = alpha / (1 - alpha)
    expected = np.minimum(snr, 5) / (snr if prediction == "epsilon" else snr + 1)
    found = snr_weights(scheduler, torch.arange(1000), 5.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-3)
    assert found.min() < 0.05
    assert found.max() <= 1


def test_where_there_is_no_signal_noise_counts_fully_and_velocity_not():
    for prediction, expected in (("epsilon", 1.0), ("v_prediction", 0.0)):
        scheduler = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type=prediction)
        assert snr_weights(scheduler, torch.tensor([999]), 5.0).item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_is_the_weighted_mean_of_the_samples(tiny, dataset):
    config = CONFIG.model_copy(update={"min_snr_gamma": 0.5, "steps": 1})
    found, _ = trained(tiny, dataset, config=config)
    batch = training_batches(tiny, dataset, config, seed=3).at(0)
    scheduler = DDPMScheduler.from_config(tiny.scheduler_config)
    level = scheduler.alphas_cumprod[batch.timesteps].double()
    noisy = scheduler.add_noise(batch.clean, batch.noise, batch.timesteps)
    with torch.no_grad():
        predicted = tiny.unet(noisy, batch.timesteps, batch.text).sample
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(batch.clean, batch.noise, batch.timesteps) if velocity else batch.noise
    snr = level / (1 - level)
    weights = snr.clamp(max=0.5) / (snr + 1 if velocity else snr)
    losses = (predicted - target).square().mean(dim=(1, 2, 3)).double()
    assert found[0][1] == pytest.approx((weights * losses).mean().item(), rel=1e-4)
    assert found[0][1] < 0.9 * losses.mean().item()


# The learning rate, and what is written


def test_a_constant_rate_stays_after_its_rise():
    factors = [learning_rate_factor(step, 20, 0.1, "constant") for step in range(20)]
    assert factors == [0.5] + [1.0] * 19


def test_settings_that_change_nothing_are_not_part_of_what_older_runs_are_known_by():
    new = {"schedule", "accumulation", "gradient_checkpointing", "min_snr_gamma"}
    assert not new & RunConfig().model_dump(mode="json")["tuning"].keys()
    config = TuningConfig(schedule="constant", accumulation=2, gradient_checkpointing=True, min_snr_gamma=5)
    content = config.model_dump(mode="json")
    assert new <= content.keys()
    assert TuningConfig.model_validate(content) == config


@pytest.mark.parametrize("option", [{"accumulation": 0}, {"min_snr_gamma": 0}, {"schedule": "linear"}])
def test_settings_that_cannot_be_are_refused(option):
    with pytest.raises(ValidationError, match=next(iter(option))):
        TuningConfig.model_validate(option)


# Going on


ALONE = {"ensembles": ("agc:m=1.0",), "threshold": ("threshold:share=0.4,remembered=9",), "none": ()}
STATES = {
    **ALONE,
    "captions and decay": ("rwa", "embedding-noise:strength=0.5", "weight-decay"),
    "redistributed shards": ("iet-agc-plus:shards=2,rounds=2,m=1.0",),
    "stopped early": ("early-stopping:every=1,patience=2,improvement=0.9,pairs=8",),
    "dp": ("dp-sgd",),
}


@pytest.mark.parametrize("names", STATES.values(), ids=STATES.keys())
@pytest.mark.parametrize("at", [2, 5])
def test_a_training_goes_on_as_if_it_had_not_been_broken_off(tiny, dataset, tmp_path, names, at):
    """Losses and tensors bit for bit, through the files of a checkpoint."""
    if "dp-sgd" in names:
        pytest.importorskip("opacus")
    config = CONFIG.model_copy(update={"steps": 8, "batch": 3})
    checkpoints = Checkpoints(tmp_path, {}, Accelerator(cpu=True))
    state = TrainingState()
    whole = trained(
        tiny,
        dataset,
        config=config,
        mitigations=names,
        state=state,
        on_step=lambda number: checkpoints.save(number, {"training": state.state_dict()}) if number == at else None,
    )
    found = checkpoints.latest(pytest.fail)
    if found is None:
        assert names == STATES["stopped early"], "no step of that number"
        return
    again = trained(tiny, dataset, config=config, mitigations=names, state=TrainingState(found.content["training"]))
    assert again[0] == [step for step in whole[0] if step[0] >= at], "that step once more, then the rest"
    assert again[1].keys() == whole[1].keys()
    assert all(torch.equal(tensor, whole[1][name]) for name, tensor in again[1].items())


@pytest.mark.parametrize("at", [1, 3, 4, 8])
def test_shards_go_on_from_wherever_they_are_broken_off(tiny, dataset, tmp_path, at):
    """In the first turn, at a turn's end, at a round's end, and at the very end."""
    test_a_training_goes_on_as_if_it_had_not_been_broken_off(
        tiny, dataset, tmp_path, STATES["redistributed shards"], at
    )


@pytest.mark.parametrize(
    ("method", "names"),
    [("svdiff", ["conv_in.weight"]), ("difffit", ["time_embedding.linear_1.weight"]), ("lora", ["conv_in.weight"])],
)
def test_every_method_goes_on_bit_for_bit(tiny, dataset, tmp_path, method, names):
    settings = {"rank": 2, "alpha": 2.0} if method == "lora" else {}
    chosen = [ParameterGroup("chosen", method, tuple(names), 0, settings=settings)]
    state, checkpoints = TrainingState(), Checkpoints(tmp_path, {}, Accelerator(cpu=True))
    whole = trained(
        tiny,
        dataset,
        chosen=chosen,
        state=state,
        on_step=lambda number: checkpoints.save(number, {"training": state.state_dict()}) if number == 2 else None,
    )
    found = checkpoints.latest(pytest.fail)
    again = trained(tiny, dataset, chosen=chosen, state=TrainingState(found.content["training"]))
    assert all(torch.equal(tensor, whole[1][name]) for name, tensor in again[1].items())


def test_a_state_without_a_part_is_refused(tiny, dataset):
    with pytest.raises(RunError, match="the saved state of this training has no training: train anew"):
        trained(tiny, dataset, state=TrainingState({}))


@pytest.mark.parametrize("accelerated", [2])
def test_a_batch_that_does_not_divide_among_processes_is_refused(tiny, dataset, accelerated):
    class Two:
        num_processes, process_index = accelerated, 0

    steps = finetune_pipeline(
        tiny,
        {},
        training_batches(tiny, dataset, CONFIG, seed=0),
        learning_rate=1.0,
        config=CONFIG.model_copy(update={"batch": 5}),
        accelerator=Two(),
    )
    with pytest.raises(MemControlError, match="batch 5 does not divide among 2 processes"):
        next(steps)

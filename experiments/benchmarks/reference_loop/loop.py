"""A trial as the authors' code runs it, re-created from what is known of it, with our way of each part as a switch.

Known (the README has the list): everything is loaded per trial, images are read from files and encoded by the
autoencoder at each step, captions are tokenised and encoded at each step, images are sampled by PNDM in 50 steps with
guidance 4, written as JPEG and read back, features of real images are computed per trial, and for SV-DIFF all
decompositions too, with every weight rebuilt at every forward pass.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from diffusers.training_utils import EMAModel
from disk import Disk
from spectral import Factors, attach, decompositions, detach
from steps import Draws, Loaded, encoded_captions, encoded_images, through_files
from switches import Switches
from torch.nn.functional import mse_loss

from memcontrol.config import RunConfig
from memcontrol.data.images import Pixels
from memcontrol.encoders import load_encoder
from memcontrol.finetuning import learning_rate_factor
from memcontrol.finetuning.flat import flat
from memcontrol.groups import ParameterGroup
from memcontrol.methods import Resources, tuned
from memcontrol.methods.decompositions import prepared
from memcontrol.pipeline.narrow_attention import attend_by_products
from memcontrol.pipeline.pointwise import multiply_pointwise
from memcontrol.sampling import drawn_prompts
from memcontrol.score import Score, Scorer
from memcontrol.tracing import Traces

PNDM_STEPS, GUIDANCE = 50, 4.0
ENCODERS = ("efficientnet-lite0", "pixels")


class ReferenceLoop:
    """Trials on one data set, each by itself but for what the switches keep.

    Attributes:
        spent: CPU seconds of the last trial by part: load, tune, sample, score.
    """

    def __init__(self, disk: Disk, config: RunConfig, switches: Switches) -> None:
        self.disk, self.config, self.switches = disk, config, switches
        self.spent: dict[str, float] = {}

    def prepare(self, groups: Sequence[ParameterGroup]) -> float:
        """Do now what the switches have done once a run; CPU seconds."""
        began, switches = time.process_time(), self.switches
        if switches.kept:
            _ = self._kept_loaded, self._kept_encoders
        if switches.latents:
            _ = self._moments
        if switches.text:
            _ = self._embeddings
        if switches.real:
            _ = self._kept_scorer
        if any(group.method == "svdiff" for group in groups):
            _ = self._resources if switches.factored else self._decompositions if switches.decomposed else None
        if switches.replayed:
            self._trace(groups)
        return time.process_time() - began

    def trial(self, groups: Sequence[ParameterGroup], rate: float, seed: int) -> dict[str, Score]:
        """The scores of one mask."""
        self.spent = {}
        with self._part("load"):
            loaded = self._kept_loaded if self.switches.kept else self._load()
        with self._tunable(loaded.pipeline.unet, groups) as (parameters, folded):
            with self._part("tune"), self._traces.replayed() if self.switches.replayed else nullcontext():
                average = self._tune(loaded, parameters, rate, seed)
            with folded(average), self._part("sample"):
                images = self._sample(loaded, seed)
        with self._part("score"):
            scorer = self._kept_scorer if self.switches.real else self._scorer()
            return scorer(images)

    # What is made once, or anew

    def _load(self) -> Loaded:
        pipeline = self.disk.pipeline()
        if self.switches.products:
            multiply_pointwise(pipeline.unet)
            attend_by_products(pipeline.unet)
        return Loaded(pipeline, *self.disk.table())

    @cached_property
    def _kept_loaded(self) -> Loaded:
        return self._load()

    @cached_property
    def _traces(self) -> Traces:
        return Traces(self._kept_loaded.pipeline.unet)

    def _trace(self, groups: Sequence[ParameterGroup]) -> None:
        """Two steps, of which the first is traced where the process traces every call."""
        whole = self.config
        self.config = whole.model_copy(update={"tuning": whole.tuning.model_copy(update={"steps": 2})})
        loaded = self._kept_loaded
        with self._tunable(loaded.pipeline.unet, groups) as (parameters, _), self._traces.replayed():
            self._tune(loaded, parameters, 0.0, 0)
        self.config = whole

    def _encoders(self) -> dict[str, Any]:
        return {name: load_encoder(name) for name in ENCODERS}

    @cached_property
    def _kept_encoders(self) -> dict[str, Any]:
        return self._encoders()

    def _scorer(self) -> Scorer:
        scoring = self.config.scoring
        return Scorer(
            self.disk.real_images(),
            scoring.objectives,
            self._kept_encoders if self.switches.kept else self._encoders(),
            components=scoring.components,
            permutations=scoring.permutations,
            seed=self.config.seed,
        )

    @cached_property
    def _kept_scorer(self) -> Scorer:
        scorer = self._scorer()
        scorer(scorer.real.fidelity)  # encodes and fits all that it needs of the real images
        return scorer

    @cached_property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        loaded = self._load()
        posterior = encoded_images(loaded.pipeline, loaded.files)
        return posterior.mean, posterior.std

    @cached_property
    def _embeddings(self) -> dict[str, torch.Tensor]:
        loaded = self._load()
        captions = ["", *dict.fromkeys(loaded.captions)]
        return dict(zip(captions, encoded_captions(loaded.pipeline, captions), strict=True))

    @cached_property
    def _decompositions(self) -> dict[str, Factors]:
        return decompositions(self.disk.pipeline().unet)

    @cached_property
    def _resources(self) -> Resources:
        unet = self.disk.pipeline().unet
        names = [name for name, _ in unet.named_parameters() if name.endswith("weight")]
        return Resources(decompositions=prepared(unet, names, None))

    # Training

    @contextmanager
    def _tunable(self, unet: Any, groups: Sequence[ParameterGroup]) -> Iterator[tuple[list[Any], Callable[..., Any]]]:
        """Inside, the groups' tensors train; on exit the U-Net is as before. Gives them, and how to sample from it."""
        spectral = any(group.method == "svdiff" for group in groups)
        if self.switches.factored or not spectral:
            with self._part("load"):
                resources = self._resources if spectral else None
            with tuned(unet, groups, resources) as tuning:
                parameters = list(tuning.parameters.values())
                yield parameters, lambda average: _averaged(parameters, average, tuning.folded())
            return
        with self._part("load"):
            factors = self._decompositions if self.switches.decomposed else decompositions(unet)
            shifts = attach(unet, factors)
        parameters = [shifts[name].requires_grad_() for group in groups for name in group.parameters]
        try:
            yield parameters, lambda average: _averaged(parameters, average)
        finally:
            detach(unet, factors)

    def _tune(self, loaded: Loaded, parameters: list[Any], rate: float, seed: int) -> EMAModel | None:
        config, unet, averaged = self.config.tuning, loaded.pipeline.unet, self.switches.averaged
        parts = flat(parameters) if self.switches.optimizer else ()
        optimised = [part.joined for part in parts] or parameters
        optimizer = torch.optim.AdamW(
            optimised,
            lr=rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=True if parts else None,
        )
        average = None
        if averaged:
            average = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
        scheduler = DDPMScheduler.from_config(dict(loaded.pipeline.scheduler.config))
        draws = Draws(len(loaded.files), config.batch, seed)
        for step in range(config.steps):
            if averaged:
                optimizer.param_groups[0]["lr"] = rate * learning_rate_factor(step, config.steps, config.warmup)
            positions, generator = draws.positions(), draws.generator
            clean = self._latents(loaded, positions, generator)
            noise = torch.randn(clean.shape, generator=generator)
            timesteps = torch.randint(len(scheduler.alphas_cumprod), (len(clean),), generator=generator)
            dropped = torch.rand(len(clean), generator=generator) < config.caption_dropout
            captions = ["" if drop else loaded.captions[at] for at, drop in zip(positions, dropped, strict=True)]
            noisy = scheduler.add_noise(clean, noise, timesteps)
            predicted = unet(noisy, timesteps, self._text(loaded, captions), return_dict=False)[0]
            velocity = scheduler.config["prediction_type"] == "v_prediction"
            target = scheduler.get_velocity(clean, noise, timesteps) if velocity else noise
            loss = mse_loss(predicted, target)
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            for part in parts:
                part.gather()
            torch.nn.utils.clip_grad_norm_(optimised, config.clip)
            optimizer.step()
            loss.item()
            if average is not None:
                average.step(parameters)
        for part in parts:
            part.release()
        return average

    def _latents(self, loaded: Loaded, positions: Any, generator: torch.Generator) -> torch.Tensor:
        scale = float(loaded.pipeline.vae.config.scaling_factor)
        if self.switches.latents:
            mean, std = (part[positions] for part in self._moments)
        else:
            posterior = encoded_images(loaded.pipeline, [loaded.files[at] for at in positions])
            mean, std = posterior.mean, posterior.std
        drawn = mean + std * torch.randn(mean.shape, generator=generator)
        # On a CPU, torch 2 crashes in a group norm's backward pass where channels are last and its input is frozen.
        return (scale * drawn).contiguous()

    def _text(self, loaded: Loaded, captions: list[str]) -> torch.Tensor:
        if self.switches.text:
            return torch.stack([self._embeddings[caption] for caption in captions])
        return encoded_captions(loaded.pipeline, captions)

    # Sampling

    def _sample(self, loaded: Loaded, seed: int) -> Pixels:
        config, pipeline = self.config.sampling, loaded.pipeline
        kept, steps = pipeline.scheduler, config.steps if self.switches.solver else PNDM_STEPS
        settings = dict(pipeline.scheduler.config)
        if self.switches.solver:
            pipeline.scheduler = DPMSolverMultistepScheduler.from_config(settings, algorithm_type="dpmsolver++")
        else:
            pipeline.scheduler = PNDMScheduler.from_config(settings, skip_prk_steps=True)
        prompts = drawn_prompts(loaded.captions, config.images, self.config.seed)
        generator, images = torch.Generator().manual_seed(seed), []
        for start in range(0, len(prompts), config.batch):
            images += pipeline(
                **self._told(prompts[start : start + config.batch]),
                num_inference_steps=steps,
                guidance_scale=config.guidance if self.switches.guidance else GUIDANCE,
                generator=generator,
            ).images
        pipeline.scheduler = kept
        return np.stack([np.asarray(image) for image in images]) if self.switches.memory else through_files(images)

    def _told(self, prompts: list[str]) -> dict[str, Any]:
        if not self.switches.text:
            return {"prompt": prompts}
        told = torch.stack([self._embeddings[prompt] for prompt in prompts])
        return {"prompt_embeds": told, "negative_prompt_embeds": self._embeddings[""].expand_as(told)}

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        began = time.process_time()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - began


@contextmanager
def _averaged(parameters: list[Any], average: EMAModel | None, folded: Any = None) -> Iterator[None]:
    """Inside, the parameters hold their average, where there is one, and are folded into plain layers, where asked."""
    if average is not None:
        average.store(parameters)
        average.copy_to(parameters)
    if folded is None:
        yield
    else:
        with folded:
            yield
    if average is not None:
        average.restore(parameters)

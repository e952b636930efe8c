"""The inner loop: a generator of optimizer steps on the parameters it is given, everything else frozen."""

from memcontrol.finetuning.batches import Batch, Batches, TrainingBatches, training_batches
from memcontrol.finetuning.loop import Step, check_division, finetune, finetune_pipeline, learning_rate_factor
from memcontrol.finetuning.loss import LossFacts, LossRule, noise_target, snr_weights
from memcontrol.finetuning.optimization import AfterStep, BeforeStep
from memcontrol.finetuning.state import Resumable, TrainingState

__all__ = [
    "AfterStep",
    "Batch",
    "Batches",
    "BeforeStep",
    "LossFacts",
    "LossRule",
    "Resumable",
    "Step",
    "TrainingBatches",
    "TrainingState",
    "check_division",
    "finetune",
    "finetune_pipeline",
    "learning_rate_factor",
    "noise_target",
    "snr_weights",
    "training_batches",
]

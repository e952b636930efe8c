"""Where the CPU time of a trial goes: arithmetic of the networks, and everything else.

    python experiments/benchmarks/profile/measure.py

Runs the first trials of the default search as a worker runs them, storage, pictures and log included, with a stopwatch
around each part. They are the known baselines: all groups, then each family of groups, so that masks of all sizes are
among them. Each trial is one JSON line of runs.jsonl; `summarise.py` makes the table.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import faiss
import optuna
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from efficientnet_lite_pytorch import EfficientNet
from stopwatch import Stopwatch

from memcontrol import sampling
from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.encoders import EfficientNetLite0
from memcontrol.encoders.pixels import PixelEncoder
from memcontrol.finetuning import TrainingBatches
from memcontrol.finetuning.flat import FlatTensors
from memcontrol.pipeline.latent import LatentPipeline
from memcontrol.run import RunFolder
from memcontrol.score import Attacker, Scorer, families
from memcontrol.study import worker as working
from memcontrol.study.events import Event, Finished
from memcontrol.study.ledger import Ledger
from memcontrol.study.placement import take_device
from memcontrol.study.trial import Laboratory
from memcontrol.study.worker import Worker
from memcontrol.tracing import Traces

HERE = Path(__file__).parent
PARTS = (
    (UNet2DConditionModel, "forward", "U-Net forward"),
    (Traces, "_forward", "U-Net forward"),
    (Traces, "_tried", "tracing"),
    (Accelerator, "backward", "U-Net backward"),
    (AutoencoderKL, "decode", "decoder"),
    (EfficientNet, "extract_features", "EfficientNet"),
    (TrainingBatches, "at", "batches"),
    (torch.optim.AdamW, "step", "AdamW"),
    (FlatTensors, "hold", "AdamW"),
    (FlatTensors, "gather", "AdamW"),
    (Accelerator, "clip_grad_norm_", "clipping"),
    (EMAModel, "step", "running average"),
    (sampling, "solver", "scheduler"),
    (DPMSolverMultistepScheduler, "step", "scheduler"),
    (DPMSolverMultistepScheduler, "scale_model_input", "scheduler"),
    (LatentPipeline, "decode", "pixels of decoded images"),
    (EfficientNetLite0, "__call__", "EfficientNet's input"),
    (PixelEncoder, "__call__", "low-passed pixels"),
    (faiss, "knn", "FAISS"),
    (families, "copying_against", "copying statistics"),
    (families, "frechet_interval", "fd statistics"),
    (families, "kernel_interval", "kid statistics"),
    (Attacker, "__call__", "membership"),
    (Scorer, "__call__", "scores"),
    (Laboratory, "evaluate", "tuning and sampling loop"),
    (working, "beside_training", "picture"),
    (RunFolder, "write_picture", "picture"),
    (Ledger, "claim_reference", "storage"),
    (Ledger, "claim_trial", "storage"),
    (Ledger, "complete", "storage"),
)
"""Owner and name of what is timed, and the part it is charged to; what is not named falls to the part around it."""


class Reporter:
    """Writes down each trial's parts when the worker says that it is finished.

    Attributes:
        said: what all lines say.
    """

    def __init__(self, laboratory: Laboratory, file: Path, said: dict[str, Any]) -> None:
        self.laboratory, self.file, self.said, self.stopwatch = laboratory, file, said, Stopwatch()
        for owner, attribute, name in PARTS:
            self.stopwatch.wrap(owner, attribute, name)

    def work(self, folder: RunFolder) -> None:
        """Run the budget's trials, and no references."""
        working.reference_names = lambda _laboratory: ()
        self.worker = Worker(self.laboratory, folder, 0, self)
        self.stopwatch.taken()
        self.worker.run()

    def __call__(self, event: Event) -> None:
        """Hear of an event."""
        if not isinstance(event, Finished) or event.trial is None:
            return
        space, ledger = self.laboratory.candidates, self.worker.ledger
        spent = {key: round(seconds, 4) for key, seconds in self.stopwatch.taken().items()}
        candidate = ledger.proposer.candidate(ledger.trials()[event.trial].params)
        numel = sum(group.numel for group in space.trained(candidate.levels))
        line = {"trial": event.trial, "mask": candidate.mask, "numel": numel, "error": event.error}
        line |= self.said | {"wall_s": event.seconds, "cpu_s": spent}
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self.stopwatch.taken()


def configuration(options: argparse.Namespace) -> RunConfig:
    """The default search, with the budget, steps and images asked for."""
    default = RunConfig()
    return default.model_copy(
        update={
            "search": default.search.model_copy(update={"budget": options.trials, "rungs": (), "checkpoints": False}),
            "tuning": default.tuning.model_copy(update={"steps": options.steps}),
            "sampling": default.sampling.model_copy(update={"images": options.images}),
        }
    )


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--images", type=int, default=RunConfig().sampling.images)
    parser.add_argument("--label", default="", help="what stands in the lines, such as a commit")
    parser.add_argument("--out", type=Path, default=HERE / "runs.jsonl")
    options = parser.parse_args()
    take_device("cpu")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    laboratory = Laboratory(configuration(options), cache=Cache(default_cache_folder()), device="cpu")
    laboratory.scorer(laboratory.scorer.real.fidelity)  # features of real images, which all trials of a run share
    said = {"steps": options.steps, "images": options.images, "label": options.label}
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        folder.prepare()
        Reporter(laboratory, options.out, said).work(folder)


if __name__ == "__main__":
    main()

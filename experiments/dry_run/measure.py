"""How good a dry run's estimates of time and memory are: a small search on the shipped model, planned and then run.

    python experiments/dry_run/measure.py

Plans a search of three candidates with full fine-tuning once as its reference, runs it with one worker in an empty
cache, and writes the plan's seconds and bytes beside what was used to results.json.
"""

import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
CONFIG = {
    "search": {"budget": 3, "trajectory_rates": [3e-3], "trajectory_points": [1.0]},
    "confirm": {"seeds": 0},
}


def used() -> tuple[float, float]:
    """CPU seconds of this process, and the most memory that it had, in GB."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEMCONTROL_CACHE"] = str(Path(folder) / "cache")
        from memcontrol.config import RunConfig
        from memcontrol.planning import plan_search
        from memcontrol.study.search import search

        config = RunConfig.model_validate(CONFIG)
        plan = plan_search(config, Path(folder) / "planned", workers=1)
        before, began = used()[0], time.monotonic()
        search(config, Path(folder) / "run", workers=1)
        cpu, memory = used()
    if plan.machine is None or plan.seconds is None:
        raise SystemExit(f"the plan has problems: {plan.problems}")
    content = {
        "hardware": f"{os.cpu_count()} cores, no GPU, one worker, one thread, torch {torch.__version__}",
        "tflops": plan.machine.tflops,
        "estimated_s": plan.seconds,
        "cpu_s": cpu - before,
        "wall_s": time.monotonic() - began,
        "estimated_gb": {need.where: need.bytes / 1e9 for need in plan.needs},
        "peak_memory_gb": memory,
    }
    (HERE / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    for name, value in content.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()

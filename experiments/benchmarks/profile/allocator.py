"""What keeping freed memory saves: the same training in fresh processes with it and without it, one after another.

    python experiments/benchmarks/profile/allocator.py

Writes allocator.json and prints the README's table. CPU seconds and page faults are of a trial of all groups, after
one short trial; memory is the process's peak.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from memcontrol.cache import Cache, default_cache_folder
from memcontrol.config import RunConfig
from memcontrol.study.placement import keep_freed_memory
from memcontrol.study.trial import Laboratory

HERE = Path(__file__).parent
ARMS = ("left", "kept")
FIRST_STEPS = 20
Line = dict[str, Any]


def usage() -> tuple[float, int]:
    return time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measured(arm: str, steps: int) -> Line:
    """One trial of this process."""
    torch.set_num_threads(1)
    if arm == "kept" and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory")
    laboratory = Laboratory(RunConfig(), cache=Cache(default_cache_folder()), device="cpu")
    space = laboratory.candidates
    levels = [1] * len(space.groups)
    rate = space.rates.rate(space.customary_rate(levels))
    laboratory.evaluate(space.trained(levels), rate, FIRST_STEPS, lambda *_: None)
    began, faults = usage()
    laboratory.evaluate(space.trained(levels), rate, steps, lambda *_: None)
    ended, faults_after = usage()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"arm": arm, "cpu_s": round(ended - began, 3), "faults": faults_after - faults, "peak_mb": peak // 1024}


def apart(arm: str, steps: int) -> Line:
    """The same in a new process."""
    command = [sys.executable, __file__, "--arm", arm, "--steps", str(steps)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    line: Line = json.loads(found.stdout.splitlines()[-1])
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=RunConfig().tuning.steps)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--arm", choices=ARMS, help="only this, in this process, printed as JSON")
    parser.add_argument("--out", type=Path, default=HERE / "allocator.json")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measured(options.arm, options.steps)))
        return
    lines = [apart(arm, options.steps) | {"pair": pair} for pair in range(options.pairs) for arm in ARMS]
    options.out.write_text(json.dumps(lines, indent=1) + "\n")
    print("| pair | freed memory | CPU s | page faults | peak, MB |\n|---|---|---|---|---|")
    for line in lines:
        print(f"| {line['pair']} | {line['arm']} | {line['cpu_s']:.2f} | {line['faults']:,} | {line['peak_mb']} |")
    pairs = [lines[place : place + 2] for place in range(0, len(lines), 2)]
    ratios = sorted(left["cpu_s"] / kept["cpu_s"] for left, kept in pairs)
    print("\nCPU seconds left / kept by pair: " + ", ".join(f"{ratio:.3f}" for ratio in ratios))


if __name__ == "__main__":
    main()

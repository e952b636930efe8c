"""How many workers one server bears: trivial trials, workers that import no torch, the budget checked. Prints JSON."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import optuna
import server as servers
import trivial
from optuna.trial import TrialState

from memcontrol.run import RunFolder
from memcontrol.study.execution import Execution
from memcontrol.study.processes import run_processes


def counts(server: servers.Server) -> dict[str, float]:
    """What the server did so far."""
    names = ("xact_commit", "tup_returned", "tup_inserted", "tup_updated", "sessions")
    [row] = server.execute(f"SELECT {', '.join(names)} FROM pg_stat_database WHERE datname = 'postgres'")
    return {name: float(str(value)) for name, value in zip(names, row, strict=True)}


def server_cpu_s(server: servers.Server) -> float:
    """CPU seconds of the server and of all its connections that ended."""
    postmaster = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=640)
    parser.add_argument("--seconds", type=float, default=0.0, help="of a trial")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with servers.running() as server, tempfile.TemporaryDirectory() as path:
        os.environ["OPTUNA_STORAGE"] = server.url
        folder = RunFolder(Path(path))
        execution = Execution("many", heartbeat_s=10, grace_s=60)
        order = trivial.Order(folder.path, arguments.trials, 10 * arguments.trials, arguments.seconds, False, execution)
        study = trivial.Integers(order)
        times: list[float] = []
        before, cpu = counts(server), server_cpu_s(server)
        run_processes(trivial.work, order, ["cpu"] * arguments.workers, lambda _: times.append(time.monotonic()))
        trials = study.trials()
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        study.database.rest()
        took = max(times) - min(times)
        time.sleep(1)  # a connection's counts arrive when it is closed
        done = {name: (value - before[name]) / len(complete) for name, value in counts(server).items()}
        found = {
            "complete": len(complete),
            "budget exact": len(complete) == arguments.trials == len(trials),
            "none twice": len({trial.params["x"] for trial in complete}) == len(complete),
            "seconds from the first result to the last": round(took, 2),
            "trials a second": round((len(times) - 1) / took, 2),
            "server CPU seconds a trial": round((server_cpu_s(server) - cpu) / len(complete), 4),
            "of the server a trial": {name: round(value, 1) for name, value in done.items()},
        }
        print(json.dumps(vars(arguments) | found, indent=1))
        if False in found.values():
            raise SystemExit(1)


if __name__ == "__main__":
    main()

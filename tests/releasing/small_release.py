"""The settings of a training that takes seconds, and how a started one ends."""

import subprocess

CONFIG = {
    "data": {"train_size": 8, "fidelity": 24, "copying": 64, "confirmation": 8},
    "tuning": {"steps": 6, "batch": 4, "mixed_precision": "no"},
    "checkpoint_every": 2,
}


def finished(process: subprocess.Popen[str], seconds: float = 240) -> str:
    """What a process printed, once it has ended well."""
    printed, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, printed + errors
    return printed

"""The content of a finished run's files, with numbers that can be checked by hand."""

from typing import Any

FD, GAP, AMD = "fd@efficientnet-lite0", "copy_gap@pixels", "amd@pixels"
COLUMNS = ["number", "state", "mask", "learning_rate", FD, GAP, AMD, "reward", "seconds", "worker", "error"]


def score(value: float, half: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 256, "better": "lower"} | more


def scores(fd: float, gap: float) -> dict[str, Any]:
    """`amd` falls as `copy_gap` rises, so both say the same."""
    return {
        FD: score(fd, 0.5),
        GAP: score(gap, 0.01, p=0.005 if gap > 0.02 else 0.4, null=[-0.01, 0.0, 0.01], raw=gap),
        AMD: score(0.5 - gap, 0.01, better="higher"),
    }


def point(fd: float, gap: float, steps: int, rate: float | None) -> dict[str, Any]:
    return {"learning_rate": rate, "steps": steps, "loss": 0.1, "scores": scores(fd, gap)}


def member(trial: int, fd: float, gap: float, bits: str = "01101") -> dict[str, Any]:
    return {
        "mask": f"masks/trial-{trial:03d}.json",
        "trial": trial,
        "bits": bits,
        "trains": ["a", "b", "c"],
        "numel": 31232,
        "learning_rate": 0.00178 if "1" in bits else None,
        "steps": 300,
        "scores": scores(fd, gap),
        "confirmed": None,
    }


def front_content(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Full fine-tuning's Pareto points are (10, 0.15), (12, 0.09) and (16, 0.05); (20, 0.06) is dominated."""
    return {
        "schema": "memcontrol/front@1",
        "objectives": [{"name": FD, "better": "lower"}, {"name": GAP, "better": "lower"}],
        "budget": 50,
        "sampler": "gp",
        "seed": 0,
        "trials": {"complete": 4, "fail": 1},
        "references": {
            "freeze": [point(140.0, 0.0, 0, None)],
            "full-0.0003": [point(20.0, 0.06, 150, 3e-4), point(12.0, 0.09, 300, 3e-4)],
            "full-0.001": [point(16.0, 0.05, 150, 1e-3), point(10.0, 0.15, 300, 1e-3)],
        },
        "front": members,
        "hypervolume": 1.5,
        "reference_point": [140.0, 0.15],
    }


def trial_row(number: int, fd: float, gap: float, mask: str = "01101", state: str = "complete") -> dict[str, Any]:
    done = {FD: fd, GAP: gap, AMD: 0.5 - gap, "seconds": 24.0, "learning_rate": 0.00178}
    return {"number": number, "state": state, "mask": mask} | (done if state == "complete" else {"error": "bad"})

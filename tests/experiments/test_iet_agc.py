"""What experiments/iet_agc says of its lines is what the lines hold."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "iet_agc"


@pytest.fixture(scope="module")
def summarise() -> ModuleType:
    spec = importlib.util.spec_from_file_location("iet_agc_summarise", FOLDER / "summarise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(arm: str, seed: int, fd: float, memorized: float, **more: Any) -> dict[str, Any]:
    scores = {"fd@efficientnet-lite0": fd, "copied_share@pixels": 0.0, "copy_gap@pixels": 0.0}
    found = {"data": "brain", "seed": seed, "arm": arm, "scores": scores, "core_seconds": 1.0, "copies": [3, 0, 1]}
    return found | {"memorized": [memorized] * 16, "below_honest": memorized} | more


def arms_of(summarise: ModuleType, folder: Path, rows: list[dict[str, Any]]) -> Any:
    path = folder / "runs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return summarise.read(path)["brain"]


def plain(summarise: ModuleType, seed: int, *, shift: float = 0.0) -> list[dict[str, Any]]:
    """Plain training at four numbers of steps: fd 10, 15, 20 and 40, memorized 0.9, 0.7, 0.5 and 0.1."""
    numbers = ((10.0, 0.9), (15.0, 0.7), (20.0, 0.5), (40.0, 0.1))
    return [row(arm, seed, fd, m + shift) for arm, (fd, m) in zip(summarise.STEPS, numbers, strict=True)]


def test_seeds_that_lack_a_way_to_train_are_left_out(summarise: ModuleType, tmp_path: Path) -> None:
    rows = [*plain(summarise, 5), *plain(summarise, 6), row("IET-AGC", 5, 20.0, 0.5)]
    arms = arms_of(summarise, tmp_path, rows)
    assert {arm: tuple(found) for arm, found in arms.items()} == dict.fromkeys([*summarise.STEPS, "IET-AGC"], (5,))


@pytest.mark.parametrize(("fd", "expected"), [(10, 0.9), (15, 0.7), (30, 0.3), (9.9, None), (40.1, None)])
def test_plain_training_at_equal_fd_lies_on_the_line_through_its_points(
    summarise: ModuleType, fd: float, expected: float | None
) -> None:
    found = summarise.at_equal_fd(fd, [(10.0, 0.9), (40.0, 0.1), (20.0, 0.5)])
    assert found == (None if expected is None else pytest.approx(expected))


def test_an_arm_is_compared_with_its_own_seed_and_only_where_plain_training_reaches_its_fd(
    summarise: ModuleType, tmp_path: Path
) -> None:
    rows = [*plain(summarise, 5), *plain(summarise, 6, shift=0.05), *plain(summarise, 7)]
    rows += [row("IET-AGC", 5, 30.0, 0.2), row("IET-AGC", 6, 15.0, 0.45), row("IET-AGC", 7, 80.0, 0.0)]
    found = summarise.beyond_fewer_steps(arms_of(summarise, tmp_path, rows), "IET-AGC", "memorized")
    differences = np.array([0.2 - 0.3, 0.45 - 0.75])
    half = t.ppf(0.975, 1) * differences.std(ddof=1) / np.sqrt(2)
    assert (found.value, found.half, found.n) == (pytest.approx(-0.2), pytest.approx(half), 2)


def test_paired_differences_are_to_the_default_of_the_same_seed(summarise: ModuleType, tmp_path: Path) -> None:
    rows = [*plain(summarise, 5), *plain(summarise, 6, shift=0.05)]
    rows += [row(summarise.HONEST, seed, 0.0, 0.01) for seed in (5, 6)]
    rows += [row("IET-AGC", 5, 30.0, 0.2), row("IET-AGC", 6, 30.0, 0.35)]
    content = summarise.summarised(arms_of(summarise, tmp_path, rows), {})
    difference = content["arms"]["IET-AGC"]["against_default"]["memorized"]
    assert difference["mean"] == pytest.approx(((0.2 - 0.9) + (0.35 - 0.95)) / 2)
    assert content["seeds"] == [5, 6]
    assert "fd" not in content["arms"][summarise.HONEST]


def test_dispersion_is_one_for_one_rate_and_large_where_the_same_images_are_always_skipped(
    summarise: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    seen = np.full(20_000, 200)
    even = {"skips": rng.binomial(seen, 0.2).tolist(), "seen": seen.tolist()}
    assert summarise.dispersion(even) == pytest.approx(1.0, abs=0.05)
    always = {"skips": [200, 0, 0, 0], "seen": [200] * 4}
    assert summarise.dispersion(always) == pytest.approx(200)
    assert np.isnan(summarise.dispersion({"skips": [0, 0], "seen": [5, 5]}))


def test_skip_rates_count_showings_and_are_ranked_against_what_else_is_known_of_an_image(
    summarise: ModuleType,
) -> None:
    controlled = {"skips": [30, 2, 10], "seen": [100, 20, 50]}
    assert summarise.skip_rates(controlled).tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert summarise.favoured(controlled, [3, 0, 1]) == pytest.approx(1.0)
    assert summarise.favoured(controlled, [1, 9, 4]) == pytest.approx(-1.0)
    assert np.isnan(summarise.favoured(controlled, [0, 0, 0]))


def test_skipping_is_told_as_shares_and_by_brightness(summarise: ModuleType) -> None:
    controlled = {"skips": [30, 2, 10], "seen": [100, 50, 50], "skipped_by_round": [0.1, 0.4], "empty": 0.5}
    images = np.stack([np.full((4, 4, 3), level, dtype=np.uint8) for level in (10, 200, 100)])
    found = summarise.skipping({5: controlled | {"extra_steps": 7}}, {5: {"copies": [0, 0, 0]}}, {5: images})
    means = {name: None if told is None else told["mean"] for name, told in found.items()}
    assert means["skipped_share"] == pytest.approx(42 / 200)
    assert (means["last_round"], means["empty_bank"], means["extra_steps"]) == (0.4, 0.5, 7)
    assert means["with_brightness"] == pytest.approx(-1.0)
    assert means["with_copies"] is None


def test_longer_trainings_may_have_fewer_seeds(summarise: ModuleType, tmp_path: Path) -> None:
    longer = f"IET-AGC{summarise.LONGER} 600 steps"
    rows = [*plain(summarise, 5), *plain(summarise, 6), row(longer, 5, 10.0, 0.4)]
    rows += [row(summarise.HONEST, seed, 0.0, 0.01) for seed in (5, 6)]
    content = summarise.summarised(arms_of(summarise, tmp_path, rows), {})
    assert content["seeds"] == [5, 6]
    difference = content["arms"][longer]["against_default"]["memorized"]
    assert (difference["mean"], difference["seeds"], difference["low"]) == (pytest.approx(-0.5), 1, None)

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memcontrol.cache import Cache
from memcontrol.config import ScoringConfig
from memcontrol.data.brain import draw_slices
from memcontrol.encoders import Encoder, Features, PixelEncoder, load_encoder
from memcontrol.errors import MemControlError
from memcontrol.measures import MEASURES
from memcontrol.metrics.frechet import LeadingComponents, frechet_distance
from memcontrol.metrics.kernel import kernel_distance
from memcontrol.score import RealImages, Score, Scorer, direction, from_model, load_objective, minimised, parse_name


class CountingEncoder:
    """Pixels, and how many images each call encoded."""

    name, identity = "pixels", ""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, pixels: NDArray[np.uint8]) -> Features:
        self.calls.append(len(pixels))
        return PixelEncoder()(pixels)


def draw(count: int, stream: str) -> NDArray[np.uint8]:
    return draw_slices(count, seed=11, stream=stream, resolution=32).pixels()


@pytest.fixture(scope="module")
def real() -> RealImages:
    training, fidelity, copying = draw(24, "training"), draw(64, "fidelity"), draw(128, "copying")
    return RealImages(training, fidelity, copying, 255 - training, 255 - fidelity, 255 - copying)


@pytest.fixture(scope="module")
def honest() -> NDArray[np.uint8]:
    return draw(48, "confirmation")


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return {name: load_encoder(name) for name in ("efficientnet-lite0", "pixels")}


def test_default_scores_of_honest_copied_and_noise_images(
    real: RealImages, honest: NDArray[np.uint8], encoders: dict[str, Encoder]
) -> None:
    config = ScoringConfig()
    scorer = Scorer(real, config.objectives + config.reported, encoders, components=config.components)
    plain = scorer(honest)
    assert tuple(plain) == tuple(n for n in config.objectives + config.reported if not from_model(n))
    for name, score in plain.items():
        assert (score.n, score.better) == (48, "higher" if name.startswith("amd") else "lower")
        assert score.low <= score.value <= score.high, name
        assert (score.p is None) == name.startswith(("fd", "kid"))
        assert score.null is None or score.null[0] <= score.raw <= score.null[2], name
    planted = scorer(np.concatenate([real.training, honest[24:]]))
    for name in ("copy_gap@pixels", "copy_gap@efficientnet-lite0", "closer_share@pixels", "nn_ratio_share@pixels"):
        assert planted[name].value > planted[name].null[2], name
    assert planted["amd@efficientnet-lite0"].value < planted["amd@efficientnet-lite0"].null[0]
    noise = scorer(np.random.default_rng(0).integers(0, 256, honest.shape, dtype=np.uint8))
    for name in ("fd@efficientnet-lite0", "kid@efficientnet-lite0"):
        assert noise[name].low > plain[name].high, name


def test_fidelity_scores_are_the_metrics_on_the_fidelity_set(real: RealImages, honest: NDArray[np.uint8]) -> None:
    pixels = PixelEncoder()
    scores = Scorer(real, ["fd@pixels", "kid@pixels"], {"pixels": pixels}, components=5)(honest)
    project = LeadingComponents.fit(pixels(real.fidelity), 5)
    expected = frechet_distance(project(pixels(honest)), project(pixels(real.fidelity)))
    assert scores["fd@pixels"].value == pytest.approx(expected)
    assert scores["kid@pixels"].value == pytest.approx(kernel_distance(pixels(honest), pixels(real.fidelity)))


def test_variants_compare_with_their_own_images(real: RealImages, honest: NDArray[np.uint8]) -> None:
    names = [f"{measure}{ending}@pixels" for measure in ("copy_gap", "amd") for ending in ("", "_raw")]
    names += ["copy_gap_same_subjects@pixels", "copy_gap_same_subjects_raw@pixels"]
    swapped = replace(real, same_subjects=real.fidelity, same_subjects_raw=real.fidelity_raw)
    scores = Scorer(swapped, names, {"pixels": PixelEncoder()}, permutations=19)(honest)
    # The raw images here are negatives, which lie on the far side.
    assert scores["amd@pixels"].value < 0.5 < 1.0 < scores["amd_raw@pixels"].value
    only = replace(real, copying=real.fidelity, copying_raw=real.fidelity_raw)
    other = Scorer(only, names[:2], {"pixels": PixelEncoder()}, permutations=19)(honest)
    assert scores["copy_gap_same_subjects@pixels"] == other["copy_gap@pixels"] != scores["copy_gap@pixels"]
    assert scores["copy_gap_same_subjects_raw@pixels"] == other["copy_gap_raw@pixels"]


def test_real_images_are_encoded_once_and_generated_once_a_call(real: RealImages, honest: NDArray[np.uint8]) -> None:
    counting = CountingEncoder()
    scorer = Scorer(real, ["fd@pixels", "copy_gap@pixels", "closer_share@pixels"], {"pixels": counting}, permutations=5)
    assert counting.calls == []
    scorer(honest)
    assert sorted(counting.calls) == [24, 48, 64, 128]
    scorer(honest)
    assert counting.calls[4:] == [48]


def test_features_and_statistics_of_real_images_are_kept_by_fingerprint(
    real: RealImages, honest: NDArray[np.uint8], tmp_path: Path
) -> None:
    names = ["fd@pixels", "fd_full@pixels"]

    def scored(images: RealImages, components: int = 5) -> tuple[dict[str, Score], list[int]]:
        counting = CountingEncoder()
        scorer = Scorer(images, names, {"pixels": counting}, components=components, cache=Cache(tmp_path))
        return scorer(honest), counting.calls

    plain = Scorer(real, names, {"pixels": PixelEncoder()}, components=5)(honest)
    first, calls = scored(real)
    assert sorted(calls) == [48, 64]
    assert first.keys() == plain.keys()
    for name, score in first.items():
        # Numbers from a file lie elsewhere in memory, by which some processors' linear algebra rounds otherwise.
        near = {part: pytest.approx(getattr(score, part), rel=1e-9) for part in ("value", "low", "high")}
        assert plain[name] == replace(score, **near)
    kept = set(tmp_path.rglob("*.npy"))
    assert {path.parent.name for path in kept} == {"features", "statistics"}
    again, calls = scored(real)
    assert (again, calls) == (first, [48])
    assert set(tmp_path.rglob("*.npy")) == kept
    scored(real, components=4)
    scored(replace(real, fidelity=real.copying))
    assert len(set(tmp_path.rglob("*.npy"))) == len(kept) + 1 + 3


def test_scores_are_a_pure_function_of_the_images(real: RealImages, honest: NDArray[np.uint8]) -> None:
    names = ["fd@pixels", "kid@pixels", "copy_gap@pixels"]
    scorer = Scorer(real, names, {"pixels": PixelEncoder()}, permutations=19, seed=3)
    first = scorer(honest)
    scorer(honest[:30])
    assert scorer(honest) == first
    alone = Scorer(real, names[2:], {"pixels": PixelEncoder()}, permutations=19, seed=3)(honest)
    assert alone["copy_gap@pixels"] == first["copy_gap@pixels"]
    other = Scorer(real, names, {"pixels": PixelEncoder()}, permutations=19, seed=4)(honest)
    assert other["copy_gap@pixels"].null != first["copy_gap@pixels"].null


def test_nearest_training_images(real: RealImages) -> None:
    scorer = Scorer(real, [], {"pixels": PixelEncoder()})
    indices, distances = scorer.nearest_training(real.training[[5, 0, 9]], "pixels")
    np.testing.assert_array_equal(indices, [5, 0, 9])
    np.testing.assert_allclose(distances, 0.0, atol=1e-6)


def test_scores_go_through_json() -> None:
    full = Score(0.1, 0.0, 0.2, 64, "lower", p=0.03, null=(-0.1, 0.0, 0.1), raw=-0.2)
    plain = Score(0.8, 0.7, 0.9, 64, "higher")
    for score in (full, plain):
        assert Score.from_json(json.loads(json.dumps(score.to_json()))) == score
    assert plain.to_json() == {"value": 0.8, "low": 0.7, "high": 0.9, "n": 64, "better": "higher"}
    for wrong in ({"value": 1.0}, plain.to_json() | {"extra": 1}, plain.to_json() | {"better": "up"}):
        with pytest.raises(MemControlError, match=r"not a score: .*expected the keys better, high, low, n, value"):
            Score.from_json(wrong)


def test_minimised_turns_by_direction() -> None:
    assert minimised(Score(2.0, 1.0, 3.0, 8, "lower")) == 2.0
    assert minimised(Score(2.0, 1.0, 3.0, 8, "higher")) == -2.0


def test_every_default_name_parses() -> None:
    for name in ScoringConfig().objectives + ScoringConfig().reported:
        measure, encoder = parse_name(name)
        assert f"{measure}@{encoder}" == name
        assert measure in MEASURES
    assert parse_name("closer_share_same_subjects@latents") == ("closer_share_same_subjects", "latents")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "copygap@pixels",
            r'unknown measure "copygap" in score "copygap@pixels": did you mean copy_gap or ',
        ),
        ("fd@pixel", r'unknown encoder "pixel" in score "fd@pixel": did you mean pixels\?'),
        ("noise_magnitude@pixels", "noise_magnitude is measured on unet: write noise_magnitude@unet"),
        ("fid@pixels", "fid is measured on inception: write fid@inception"),
        ("membership_auc@pixels", "measured on loss or secmi or pia or noise: write membership_auc@loss"),
        ("defualt", 'unknown measure "defualt" in score "defualt": did you mean default'),
        ("", 'unknown measure ""'),
    ],
)
def test_names_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(MemControlError, match=message) as raised:
        parse_name(name)
    assert "\n" not in str(raised.value)


def test_scorer_refuses_what_it_cannot_compute(real: RealImages, honest: NDArray[np.uint8]) -> None:
    pixels = {"pixels": PixelEncoder()}
    with pytest.raises(MemControlError, match="copy_gap_same_subjects@pixels needs same_subjects images"):
        Scorer(real, ["copy_gap_same_subjects@pixels"], pixels)
    with pytest.raises(MemControlError, match='unknown encoder "latents"'):
        Scorer(real, ["fd@latents"], pixels)

    class Broken:
        name = "pixels"

        def __call__(self, pixels: NDArray[np.uint8]) -> Features:
            return np.full((len(pixels), 4), np.nan, dtype=np.float32)

    with pytest.raises(MemControlError, match="encoder pixels gave features that are not finite"):
        Scorer(real, ["amd@pixels"], {"pixels": Broken()})(honest)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_objectives.py").write_text(
        "from memcontrol.score import Score\n"
        "def brightness(images, real):\n    return images.mean() - real.training.mean()\n"
        "brightness.better = 'higher'\n"
        "def scored(images, real):\n    return Score(1.0, 0.0, 2.0, 3, 'lower')\n"
        "def count(images, real):\n    return len(images)\n"
        "def nothing(images, real):\n    return None\n"
        "def lost(images, real):\n    return float('nan')\n"
        "def sideways(images, real):\n    return 0.0\n"
        "sideways.better = 'left'\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_objectives"
    sys.modules.pop("own_objectives", None)


def test_a_users_callable_is_an_objective(own_module: str, real: RealImages, honest: NDArray[np.uint8]) -> None:
    names = [f"{own_module}:{function}" for function in ("brightness", "scored", "count")] + ["amd@pixels"]
    scores = Scorer(real, names, {"pixels": PixelEncoder()}, permutations=5)(honest)
    value = honest.mean() - real.training.mean()
    assert scores[names[0]] == Score(pytest.approx(value), pytest.approx(value), pytest.approx(value), 48, "higher")
    assert scores[names[1]] == Score(1.0, 0.0, 2.0, 3, "lower")
    assert (scores[names[2]].value, scores[names[2]].better) == (48.0, "lower")
    assert list(scores) == names


def test_directions_are_known_before_anything_is_scored(own_module: str) -> None:
    names = ("fd@pixels", "copy_gap_raw@pixels", "amd@pixels", f"{own_module}:brightness", f"{own_module}:count")
    assert [direction(name) for name in names] == ["lower", "lower", "higher", "higher", "lower"]


@pytest.mark.parametrize("function", ["nothing", "lost"])
def test_a_users_callable_must_return_a_number(
    function: str, own_module: str, real: RealImages, honest: NDArray[np.uint8]
) -> None:
    with pytest.raises(MemControlError, match=f"{function} returned (None|nan): expected one finite number or a Score"):
        Scorer(real, [f"{own_module}:{function}"], {})(honest)


def test_a_users_callable_that_is_not_there(own_module: str) -> None:
    for name, message in (
        ("no_such_module:f", "cannot import 'no_such_module' .*PYTHONPATH"),
        (":f", "cannot import ''"),
        (f"{own_module}:brightnes", 'no callable "brightnes" in own_objectives: did you mean brightness'),
        (f"{own_module}:number", 'no callable "number"'),
        (f"{own_module}:sideways", "better is 'left', expected lower or higher"),
    ):
        with pytest.raises(MemControlError, match=message):
            load_objective(name)

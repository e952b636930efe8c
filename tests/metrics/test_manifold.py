import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from memcontrol.errors import MemControlError, TooFewImages
from memcontrol.metrics import manifold
from memcontrol.metrics.manifold import manifold_scores

Rows = NDArray[np.float64]
NAMES = ["precision", "recall", "density", "coverage"]


def seeded() -> np.random.Generator:
    return np.random.default_rng(1)


def values(generated: Rows, reference: Rows, k: int = 5) -> dict[str, float]:
    return {name: score[0] for name, score in manifold_scores(generated, reference, rng=seeded(), k=k).items()}


def brute_force(generated: Rows, reference: Rows, k: int = 5) -> dict[str, float]:
    """The definitions, in float64, radii by scikit-learn."""

    def radii(rows: Rows) -> Rows:
        found = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(rows).kneighbors(rows)[0]
        return np.asarray(found[:, k])

    distances = cdist(generated, reference)
    inside = distances <= radii(reference)
    return {
        "precision": float(inside.any(axis=1).mean()),
        "recall": float((distances <= radii(generated)[:, None]).any(axis=0).mean()),
        "density": float(inside.sum(axis=1).mean() / k),
        "coverage": float(inside.any(axis=0).mean()),
    }


@pytest.mark.parametrize(
    ("count", "others", "width", "k"),
    [(100, 80, 3, 5), (80, 300, 12, 5), (7, 6, 2, 5), (60, 50, 2, 1), (300, 300, 8, 9)],
)
def test_agrees_with_brute_force(count: int, others: int, width: int, k: int) -> None:
    rng = np.random.default_rng(count)
    generated, reference = rng.normal(size=(count, width)) * 0.8 + 0.4, rng.normal(size=(others, width))
    assert values(generated, reference, k) == pytest.approx(brute_force(generated, reference, k), abs=1e-9)


def test_blocks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    generated, reference = rng.normal(size=(90, 4)) + 0.3, rng.normal(size=(70, 4))
    whole = manifold_scores(generated, reference, rng=seeded())
    monkeypatch.setattr(manifold, "DISTANCES_AT_ONCE", 500)
    assert manifold_scores(generated, reference, rng=seeded()) == whole


def test_neither_place_nor_scale_matters() -> None:
    rng = np.random.default_rng(0)
    generated, reference = rng.normal(size=(90, 4)) + 0.3, rng.normal(size=(70, 4))
    expected = values(generated, reference)
    for scale, shift in ((1e-12, 0.0), (1e12, 0.0), (1.0, 1e4)):
        assert values(generated * scale + shift, reference * scale + shift) == pytest.approx(expected)


def test_distant_sets_share_nothing() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(60, 4))
    assert values(rng.normal(size=(50, 4)) + 50, reference) == dict.fromkeys(NAMES, 0.0)


def test_the_reference_itself_scores_full_marks() -> None:
    reference = np.random.default_rng(0).normal(size=(200, 30))
    measured = values(reference.copy(), reference)
    # Each image lies in its own ball and in those of which it is one of the k nearest.
    assert measured == pytest.approx({"precision": 1.0, "recall": 1.0, "density": 6 / 5, "coverage": 1.0})


def test_a_collapsed_model_is_precise_and_covers_nothing() -> None:
    reference = np.random.default_rng(0).normal(size=(200, 3))
    collapsed = np.tile(reference.mean(axis=0), (50, 1))
    measured = manifold_scores(collapsed, reference, rng=seeded())
    assert measured["precision"][0] == 1.0
    assert measured["recall"][0] == 0.0
    assert measured["coverage"][0] < 0.25
    assert {name: score[0] for name, score in measured.items()} == pytest.approx(brute_force(collapsed, reference))


def test_dropping_a_mode_lowers_recall_and_coverage_not_precision() -> None:
    rng = np.random.default_rng(0)
    modes = np.array([[0.0, 0.0], [30.0, 0.0]])
    reference = modes[np.arange(200) % 2] + rng.normal(size=(200, 2))
    both, one = modes[np.arange(200) % 2] + rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    full, dropped = values(both, reference), values(one, reference)
    assert dropped["precision"] == pytest.approx(full["precision"], abs=0.05)
    assert dropped["recall"] <= 0.5 < 0.9 < full["recall"]
    assert dropped["coverage"] <= 0.5 < 0.9 < full["coverage"]


def test_every_measure_falls_as_images_become_noise() -> None:
    rng = np.random.default_rng(0)
    reference, honest, noise = rng.normal(size=(300, 6)), rng.normal(size=(200, 6)), rng.normal(size=(200, 6)) + 20
    rows = [
        values(np.where(np.arange(200)[:, None] < share * 200, noise, honest), reference) for share in (0, 0.3, 0.9)
    ]
    for name in ("precision", "density", "coverage"):
        assert rows[0][name] > rows[1][name] > rows[2][name], name


@pytest.mark.parametrize("groups", [4, 16])
def test_left_out_groups_are_those_of_smaller_sets(groups: int) -> None:
    rng = np.random.default_rng(0)
    # Two far clusters of seven: leaving out a group there needs neighbours from the other cluster.
    generated = np.concatenate([rng.normal(size=(40, 3)), rng.normal(size=(7, 3)) * 1e-3 + 9])
    reference = rng.normal(size=(60, 3))
    measured = manifold_scores(generated, reference, rng=seeded(), groups=groups)
    labels = seeded().permutation(47) % groups
    without = [brute_force(generated[labels != group], reference) for group in range(groups)]
    for name in NAMES:
        drawn = np.array([row[name] for row in without])
        half = 1.96 * np.sqrt((groups - 1) / groups * ((drawn - drawn.mean()) ** 2).sum())
        value, low, high = measured[name]
        top = np.inf if name == "density" else 1.0
        assert (low, high) == pytest.approx((max(value - half, 0.0), min(value + half, top)), abs=1e-4), name


def test_intervals_have_the_width_of_fresh_draws() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(150, 6))
    drawn = [manifold_scores(rng.normal(size=(150, 6)) * 0.8 + 0.4, reference, rng=rng) for _ in range(60)]
    for name in NAMES:
        scores = np.array([scores[name] for scores in drawn])
        assert (scores[:, 1] <= scores[:, 0]).all()
        assert (scores[:, 0] <= scores[:, 2]).all()
        assert 0.7 < (scores[:, 2] - scores[:, 1]).mean() / (3.92 * scores[:, 0].std()) < 1.6, name


def test_no_share_is_certain() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(60, 4))
    apart = manifold_scores(rng.normal(size=(50, 4)) + 50, reference, rng=seeded())
    assert apart["precision"] == (0.0, 0.0, pytest.approx(3 / 50))
    same = manifold_scores(reference, reference, rng=seeded())
    assert same["precision"] == (1.0, pytest.approx(1 - 3 / 60), 1.0)


def test_bad_input_is_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    broken = rows.copy()
    broken[4, 0] = np.nan
    for generated, reference, message in (
        (rows[:6], rows, "needs 7 generated images or more, got 6"),
        (rows, rows[:5], "needs 6 reference images or more, got 5"),
        (broken, rows, "generated image 4"),
        (rows, broken, "reference image 4"),
        (rows[:, :2], rows, "generated images have 2 features, the reference 3"),
        (rows, np.ones((20, 3)), "all 20 reference images have the same features"),
    ):
        with pytest.raises(MemControlError, match=message) as raised:
            manifold_scores(generated, reference, rng=seeded())
        assert isinstance(raised.value, TooFewImages) == ("needs" in message)
    for wrong in ({"k": 0}, {"groups": 1}):
        with pytest.raises(MemControlError, match="expected at least 1 and 2"):
            manifold_scores(rows, rows, rng=seeded(), **wrong)

"""Scores that ask the model: attacks behind the names of scores."""

from dataclasses import replace

import numpy as np
import pytest

from memcontrol.attacks.membership import ATTACKS
from memcontrol.attacks.noise import noise_magnitudes
from memcontrol.config import AttackConfig, SamplingConfig
from memcontrol.errors import ModelError
from memcontrol.metrics.membership import auc, tpr_at_fpr
from memcontrol.score import Attacker, Score
from memcontrol.score.attacker import common_captions, first_images

NAMES = (
    "membership_auc@pia",
    "membership_tpr1@pia",
    "noise_magnitude@unet",
    "noise_magnitude_max@unet",
    "extraction@calibrated",
)
SAMPLING = SamplingConfig(images=8, steps=2, batch=32)


@pytest.fixture(scope="module")
def attacker(laboratory):
    config = AttackConfig(images=12, prompts=2, generations=10)
    real = laboratory.scorer.real
    return Attacker(
        laboratory.frozen, laboratory.dataset, real, ("fd@pixels", *NAMES), config=config, sampling=SAMPLING, seed=3
    )


@pytest.fixture(scope="module")
def scores(attacker):
    return attacker()


def test_scores_are_those_that_ask_the_model(scores):
    assert tuple(scores) == NAMES
    assert {score.better for score in scores.values()} == {"lower"}
    assert all(score.low <= score.value <= score.high for score in scores.values())


def test_membership_is_of_training_against_held_out_images(scores, attacker, laboratory):
    copying = laboratory.dataset.heldout.copying
    assert (len(attacker.members), len(attacker.nonmembers)) == (8, 12)
    sets = (laboratory.dataset.training, copying.take(range(12)))
    members, others = (ATTACKS["pia"](laboratory.frozen, images, seed=3) for images in sets)
    assert scores["membership_auc@pia"] == Score(*auc(members, others), 20, "lower")
    rate = tpr_at_fpr(members, others, 0.01)
    assert scores["membership_tpr1@pia"].value == rate.value
    assert "12 non-members cannot show" in (scores["membership_tpr1@pia"].note or "")


@pytest.mark.parametrize(("names", "nonmembers"), [(NAMES[:1], 32), (NAMES[:2], 40)], ids=["area", "rare alarms"])
def test_an_area_alone_needs_few_nonmembers(laboratory, names, nonmembers):
    few = Attacker(
        laboratory.frozen,
        laboratory.dataset,
        laboratory.scorer.real,
        names,
        config=AttackConfig(images=40),
        sampling=SAMPLING,
        seed=3,
    )
    assert few()["membership_auc@pia"].n == 8 + nonmembers


def test_noise_magnitude_is_the_mean_over_training_images_and_of_the_caption_with_most(scores, laboratory):
    means = noise_magnitudes(laboratory.frozen, laboratory.dataset.training, seed=3).mean(axis=1)
    assert scores["noise_magnitude@unet"].value == pytest.approx(means.mean())
    captions = np.array(laboratory.dataset.training.captions)
    by_caption = [means[captions == caption].mean() for caption in set(captions)]
    assert scores["noise_magnitude_max@unet"].value == pytest.approx(max(by_caption))
    assert "no interval" in (scores["noise_magnitude_max@unet"].note or "")
    assert scores["noise_magnitude@unet"].n == 8


def test_extraction_attacks_the_commonest_captions(scores, attacker, laboratory):
    assert attacker.prompts == common_captions(laboratory.dataset, 2)
    assert scores["extraction@calibrated"].n == 2 * 10
    assert attacker.rules("calibrated").edge is not None


def test_repeats_count_among_the_commonest_captions(laboratory):
    dataset = laboratory.dataset
    captions = dataset.training.captions
    repeats = np.where(np.array(captions) == captions[-1], 50, 1)
    assert common_captions(replace(dataset, repeats=repeats), 1) == [captions[-1]]


def test_a_small_set_is_taken_whole(laboratory):
    training = laboratory.dataset.training
    assert first_images(training, 99) is training
    assert first_images(training, 3).keys == training.keys[:3]


def test_what_needs_captions_is_refused_where_there_are_none(laboratory, monkeypatch):
    monkeypatch.setattr(laboratory.frozen, "text_embeddings", lambda _: None)
    config = AttackConfig(images=4)
    real = laboratory.scorer.real
    plain = Attacker(
        laboratory.frozen, laboratory.dataset, real, ["noise_magnitude"], config=config, sampling=SAMPLING, seed=0
    )
    with pytest.raises(ModelError, match="takes no text"):
        plain()

"""A candidate's scores depend on seed, candidate and configuration alone, and leave the laboratory as it was."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from memcontrol.cache import Cache
from memcontrol.config import RunConfig
from memcontrol.data.identity import dataset_fingerprint
from memcontrol.errors import DivergedError, MemControlError
from memcontrol.groups import ParameterGroup, weights_fingerprint
from memcontrol.pipeline import LatentPipeline
from memcontrol.score import Score
from memcontrol.study.candidate import Candidate
from memcontrol.study.references import (
    as_candidate,
    everything,
    score_reference,
    trajectory_steps,
    whole_model,
)
from memcontrol.study.trial import Laboratory, flattened
from memcontrol.tracing import traces


def silent(phase, done, total):
    """Hears nothing."""


def other(laboratory, **changes):
    """A laboratory of the same configuration but for these sections."""
    sections = {
        key: getattr(laboratory.config, key).model_copy(update=value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return Laboratory(laboratory.config.model_copy(update=sections), cache=laboratory.frozen.cache, device="cpu")


@pytest.fixture
def groups(laboratory):
    return {group.name: group for group in laboratory.candidates.groups}


def evaluated(laboratory, *groups, rate=5e-3, steps=6):
    return laboratory.evaluate(groups, rate, steps, silent)


def test_the_same_candidate_has_the_same_scores_whatever_came_before(laboratory, groups):
    first = evaluated(laboratory, groups["attention"])
    evaluated(laboratory, groups["resnets"], groups["ends"])
    again = evaluated(laboratory, groups["attention"])
    assert again.scores == first.scores
    np.testing.assert_array_equal(again.images, first.images)
    assert again.loss == first.loss


def test_a_replayed_trial_is_the_same_to_the_last_bit_and_runs_no_python_of_the_unet(laboratory, groups, monkeypatch):
    chosen = groups["attention"], groups["ends"]
    expected = evaluated(laboratory, *chosen)
    monkeypatch.setattr(traces, "OFTEN", 0)
    replaying, unet = other(laboratory), type(laboratory.frozen.unet)
    evaluated(replaying, groups["resnets"])
    monkeypatch.setattr(unet, "forward", None)
    found = evaluated(replaying, *chosen)
    assert found.scores == expected.scores
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.loss == expected.loss


@pytest.mark.parametrize("method", ["svdiff", "difffit", "lora"])
def test_a_trial_of_attached_layers_is_the_same_whether_it_is_replayed_from_the_start(laboratory, method, monkeypatch):
    unet = laboratory.frozen.unet
    names = tuple(name for name, _ in unet.named_parameters() if name.endswith("to_q.weight"))
    chosen = ParameterGroup("queries", method, names, 0, settings={"rank": 2, "alpha": 2} if method == "lora" else {})
    monkeypatch.setattr(traces, "OFTEN", 3)
    replaying = other(laboratory)
    first = evaluated(replaying, chosen)
    assert replaying.traces._passes
    again = evaluated(replaying, chosen)
    assert again.scores == first.scores
    np.testing.assert_array_equal(again.images, first.images)


def test_a_training_leaves_no_optimizer_behind(laboratory, groups, monkeypatch):
    made, plain = [], torch.optim.AdamW

    def watched(*inputs, **settings):
        optimizer = plain(*inputs, **settings)
        made.append(weakref.ref(optimizer))
        return optimizer

    monkeypatch.setattr(torch.optim, "AdamW", watched)
    gc.disable()
    try:
        evaluated(laboratory, groups["ends"], steps=2)
    finally:
        gc.enable()
    assert [optimizer() for optimizer in made] == [None]


def test_a_new_process_would_get_the_same_scores(laboratory, groups, tmp_path):
    fresh = Laboratory(laboratory.config, cache=Cache(tmp_path), device="cpu")
    assert evaluated(fresh, groups["attention"]).scores == evaluated(laboratory, groups["attention"]).scores


def test_untouched_tensors_never_change_and_touched_ones_return(laboratory, groups, monkeypatch):
    unet = laboratory.frozen.unet
    before = {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}
    whole, seen = weights_fingerprint(unet), []
    scorer = laboratory.scorer

    def spy(images, prompts):
        seen.append({name for name, tensor in unet.state_dict().items() if not torch.equal(tensor, before[name])})
        return scorer(images, prompts)

    monkeypatch.setattr(laboratory, "scorer", spy)
    evaluated(laboratory, groups["attention"])
    assert seen == [set(groups["attention"].parameters)]
    assert weights_fingerprint(unet) == whole


def test_a_trial_that_fails_anywhere_leaves_the_laboratory_as_it_was(laboratory, groups, monkeypatch):
    whole = weights_fingerprint(laboratory.frozen.unet)
    expected = evaluated(laboratory, groups["ends"]).scores

    def fail_at(wanted):
        def on_step(phase, done, total):
            if phase == wanted:
                raise KeyboardInterrupt

        return on_step

    for phase in ("tune", "sample", "score"):
        with pytest.raises(KeyboardInterrupt):
            laboratory.evaluate((groups["attention"],), 5e-3, 6, fail_at(phase))
        assert weights_fingerprint(laboratory.frozen.unet) == whole
    with pytest.raises(DivergedError):
        evaluated(laboratory, groups["resnets"], rate=1e20)
    assert weights_fingerprint(laboratory.frozen.unet) == whole
    assert evaluated(laboratory, groups["ends"]).scores == expected


@pytest.mark.parametrize("place", ["value", "low", "high"])
def test_a_score_that_is_not_a_number_is_an_error(laboratory, groups, monkeypatch, place):
    """Optuna would fail the trial without a reason, and JSON cannot hold it."""
    wrong = replace(Score(1.0, 0.5, 1.5, 24, "lower"), **{place: float("nan")})
    scores = dict.fromkeys(laboratory.score_names, wrong)
    monkeypatch.setattr(laboratory, "scorer", lambda *_: scores)
    with pytest.raises(MemControlError, match=r"score fd@pixels is .*nan.*: expected numbers"):
        evaluated(laboratory, groups["ends"])


def test_nothing_to_train_is_the_untuned_model(laboratory):
    untuned = laboratory.untuned(silent)
    frozen = laboratory.evaluate((), None, 6, silent)
    assert frozen.scores == untuned.scores
    assert (frozen.steps, frozen.loss) == (0, None)


def test_tuning_changes_what_is_generated(laboratory, groups):
    tuned = evaluated(laboratory, *groups.values())
    assert np.abs(tuned.images.astype(int) - laboratory.untuned(silent).images).max() > 3
    assert tuned.steps == 6
    assert tuned.loss > 0
    assert tuned.images.shape == (24, 64, 64, 3)
    assert tuned.scores.keys() == {*laboratory.config.scoring.objectives, *laboratory.config.scoring.reported}


def test_each_point_of_a_trajectory_is_a_training_of_its_own(laboratory):
    points = score_reference("full-0.005", laboratory, silent)
    assert [rate for rate, _ in points] == [0.005] * len(points)
    steps = [evaluation.steps for _, evaluation in points]
    assert steps == list(trajectory_steps(laboratory.config))
    alone = laboratory.evaluate(whole_model(laboratory), 0.005, steps[-1], silent)
    assert points[-1][1].scores == alone.scores


def test_full_fine_tuning_is_the_candidate_that_trains_all(laboratory):
    elsewhere = other(laboratory, space="stage-kinds")
    every = (1,) * len(elsewhere.candidates.groups)
    assert whole_model(elsewhere) == elsewhere.candidates.trained(every)
    assert as_candidate(elsewhere, 0.005, 6) == Candidate(every, 0.005, 6)


@pytest.mark.parametrize("space", ["attention-blocks", "lora-blocks"])
def test_where_no_candidate_trains_all_the_reference_is_its_own(laboratory, space):
    elsewhere = other(laboratory, space=space)
    assert whole_model(elsewhere) == (everything(elsewhere.frozen.unet),)
    assert as_candidate(elsewhere, 0.005, 6) is None


def test_faces_are_compared_with_other_people_and_with_other_photos_of_the_same_people(laboratory):
    data = {"source": "faces", "train_size": 10, "fidelity": 24, "copying": 60, "confirmation": 20}
    scores = other(laboratory, data=data).untuned(silent).scores
    both = {"copy_gap@pixels", "copy_gap_same_subjects@pixels"}
    assert both <= scores.keys()
    assert scores["copy_gap@pixels"].null != scores["copy_gap_same_subjects@pixels"].null
    assert not any("same_subjects" in name for name in laboratory.score_names)


def test_progress_is_told_step_by_step(laboratory, groups):
    told = []
    laboratory.evaluate((groups["ends"],), 1e-3, 6, lambda *step: told.append(step))
    assert told == [("tune", n, 6) for n in range(1, 7)] + [("sample", 24, 24), ("score", 0, 1)]


def test_latents_and_captions_are_encoded_once_for_all_trials(laboratory, groups, monkeypatch):
    evaluated(laboratory, groups["ends"])

    def refuse(*args):
        raise AssertionError("encoded again")

    monkeypatch.setattr(LatentPipeline, "_posterior", refuse)
    monkeypatch.setattr(LatentPipeline, "_encode_text", refuse)
    evaluated(laboratory, groups["ends"])


def test_another_seed_draws_other_images_batches_and_prompts(laboratory):
    reseeded = other(laboratory, seed=1)
    assert dataset_fingerprint(reseeded.dataset) != laboratory.data_fingerprint
    assert not torch.equal(reseeded.batches.at(0).noise, laboratory.batches.at(0).noise)
    assert reseeded.identity != laboratory.identity
    same_data = other(laboratory, seed=1, data={"seed": 0})
    assert same_data.data_fingerprint == laboratory.data_fingerprint


def test_identity_names_what_decides_the_scores(laboratory):
    identity = laboratory.identity
    assert identity["seed"] == "0"
    assert identity["tuning.steps"] == "6"
    assert identity["data.train_size"] == "8"
    assert identity["weights"] == weights_fingerprint(laboratory.frozen.unet)
    assert identity["data content"] == laboratory.data_fingerprint
    assert identity["space content"] == laboratory.space.sha256
    larger = other(laboratory, search={"budget": 99, "sampler": "random"})
    assert larger.identity == identity, "a budget and a sampler may change when a search is resumed"
    longer = other(laboratory, tuning={"steps": 7}).identity
    assert {key for key in identity if identity[key] != longer[key]} == {"tuning.steps"}


def test_candidates_take_the_runs_own_rates(laboratory):
    grid = laboratory.candidates.rates
    assert (grid.rate(grid.first), grid.rate(grid.last)) == (1e-3, 1e-2)
    own = other(laboratory, learning_rate=(1e-5, 1e-4)).candidates.rates
    assert (own.rate(own.first), own.rate(own.last)) == (1e-5, 1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scoring": {"objectives": "fd,copy"}}, 'unknown measure "copy" in score "copy"'),
        ({"scoring": {"objectives": "fd@pixel"}}, 'unknown encoder "pixel" in score "fd@pixel": did you mean pixels'),
        ({"model": "tinny"}, "unknown model 'tinny'"),
        ({"space": "stage-kind"}, "unknown search space 'stage-kind': did you mean stage-kinds"),
    ],
)
def test_bad_settings_are_refused_before_any_work(content, message, tmp_path):
    with pytest.raises(MemControlError, match=message):
        Laboratory(RunConfig.model_validate(content), cache=Cache(tmp_path / "cache"), device="cpu")
    assert not (tmp_path / "cache").exists()


def test_nested_settings_are_flattened_to_dotted_names():
    assert flattened({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": "1", "a.d": "[1, 2]", "e": "None"}

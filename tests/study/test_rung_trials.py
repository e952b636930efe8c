"""Trials at rungs: nothing of a training changes by being looked at, and what is scored there is what was trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mixed_masks import PARTS, mask_of

from memcontrol.cli.options import overridden
from memcontrol.config import RunConfig, Rung, SamplingConfig, validated
from memcontrol.errors import MemControlError
from memcontrol.groups import ParameterGroup, weights_fingerprint
from memcontrol.mitigations.plan import MitigationPlan
from memcontrol.sampling import sample
from memcontrol.study.rungs import Judgement
from memcontrol.study.trial import Laboratory

RUNGS = [{"share": 0.34, "images": 17}, {"share": 0.67, "images": 20}]
"""After two and after four of six steps; `fd` on 16 components needs 17 images."""


def silent(phase, done, total):
    """Hears nothing."""


def with_search(laboratory, **search):
    """A laboratory of the same configuration but for its search."""
    content = laboratory.config.model_dump(mode="json")
    config = validated(content | {"search": content["search"] | search}, where="tests")
    return Laboratory(
        config, cache=laboratory.frozen.cache, device="cpu", frozen=laboratory.frozen, dataset=laboratory.dataset
    )


@pytest.fixture(scope="module")
def rungs(laboratory):
    return with_search(laboratory, rungs=RUNGS)


@pytest.fixture(scope="module")
def attention(laboratory):
    return next(group for group in laboratory.candidates.groups if group.name == "attention")


def at_all(seen, *, until=9, whole=False):
    """A judge that remembers what it is shown, and lets all but the last go on."""

    def judge(reached):
        seen.append((reached, reached.whole() if whole else None))
        return len(seen) < until

    return judge


def same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    assert (one.scores, one.loss, one.steps) == (other.scores, other.loss, other.steps)


@pytest.mark.parametrize("methods", [("full",), tuple(PARTS)])
def test_a_candidate_that_goes_on_has_the_same_scores_to_the_last_bit(rungs, methods):
    groups = tuple(
        ParameterGroup(group.name, group.method, group.parameters, group.numel, settings=group.settings)
        for group in mask_of(rungs.frozen.unet, *methods).trained
    )
    plain = rungs.evaluate(groups, 5e-3, 6, silent)
    state, seen = torch.get_rng_state(), []
    looked = rungs.evaluate(groups, 5e-3, 6, silent, judge=at_all(seen, whole=True))
    same(looked, plain)
    assert torch.equal(torch.get_rng_state(), state)
    assert [reached.evaluation.steps for reached, _ in seen] == [2, 4]


def test_a_pruned_candidate_has_its_objectives_by_the_rungs_images_and_leaves_nothing_behind(rungs, attention):
    before = weights_fingerprint(rungs.frozen.unet)
    seen, told = [], []
    found = rungs.evaluate((attention,), 5e-3, 6, lambda *step: told.append(step), judge=at_all(seen, until=2))
    assert [len(reached.evaluation.images) for reached, _ in seen] == [17, 20]
    assert found is seen[1][0].evaluation
    assert (found.steps, seen[1][0].of, len(found.images)) == (4, 6, 20)
    assert tuple(found.scores) == rungs.config.scoring.objectives
    assert [score.n for score in found.scores.values()] == [20, 20]
    assert [step for step in told if step[0] == "tune"][-1] == ("tune", 4, 6)
    assert weights_fingerprint(rungs.frozen.unet) == before


def test_a_checkpoint_scored_whole_is_a_training_that_breaks_off_there(rungs, attention):
    """So that its mask can be trained again exactly; and the rung's images are the first of all."""
    seen = []
    rungs.evaluate((attention,), 5e-3, 6, silent, judge=at_all(seen, until=2, whole=True))
    reached, whole = seen[1]
    again = rungs.evaluate((attention,), 5e-3, 6, silent, stop=4)
    same(whole, again)
    assert (whole.steps, len(whole.images)) == (4, 24)
    assert np.abs(whole.images[:20].astype(int) - reached.evaluation.images).max() <= 1, "but for rounding"
    shorter = rungs.evaluate((attention,), 5e-3, 4, silent)
    assert shorter.scores != whole.scores, "four steps of six have another rate than four of four"


def test_images_of_whole_batches_are_not_generated_again(rungs, attention, monkeypatch):
    sampling = rungs.config.sampling.model_copy(update={"batch": 8})
    monkeypatch.setattr(rungs, "config", rungs.config.model_copy(update={"sampling": sampling}))
    seen, told = [], []
    rungs.evaluate((attention,), 5e-3, 6, lambda *step: told.append(step), judge=at_all(seen, until=2, whole=True))
    again = rungs.evaluate((attention,), 5e-3, 6, silent, stop=4)
    same(seen[1][1], again)
    first, second = [("sample", n, 17) for n in (8, 16, 17)], [("sample", n, 20) for n in (8, 16, 20)]
    whole = [("sample", 24, 24)]
    assert [step for step in told if step[0] == "sample"] == first + whole + second + whole


def test_a_rate_far_too_low_is_found_out_at_a_rung(laboratory):
    """Everything and each family of groups at their usual rates, against everything at a rate that changes nothing."""
    scoring = laboratory.config.scoring.model_copy(update={"objectives": ("fd@pixels", "kid@pixels")})
    other = Laboratory(
        laboratory.config.model_copy(update={"scoring": scoring}),
        cache=laboratory.frozen.cache,
        device="cpu",
        dataset=laboratory.dataset,
    )
    space = other.candidates
    known = space.baselines()
    candidates = [*known, replace(known[0], learning_rate=1e-9)]
    at_rung = [
        with_search(other, rungs=RUNGS[1:]).evaluate(
            space.trained(candidate.levels), candidate.learning_rate, 6, silent, judge=lambda _: False
        )
        for candidate in candidates
    ]
    points = np.array([[score.value for score in found.scores.values()] for found in at_rung])
    judgement = Judgement(eta=2.0, minimum=len(known))
    assert not judgement.goes_on(list(at_rung[-1].scores.values()), points[:-1])
    assert judgement.goes_on(list(at_rung[0].scores.values()), points[1:])


def test_a_rung_is_judged_by_the_average_of_the_tuned_tensors(laboratory, attention):
    def at_first_rung(decay):
        config = laboratory.config
        tuning = config.tuning.model_copy(update={"ema_decay": decay})
        changed = config.model_copy(update={"tuning": tuning})
        other = Laboratory(changed, cache=laboratory.frozen.cache, device="cpu", dataset=laboratory.dataset)
        seen = []
        with_search(other, rungs=RUNGS[1:]).evaluate((attention,), 1e-2, 6, silent, judge=at_all(seen, until=1))
        return seen[0][0].evaluation

    assert np.any(at_first_rung(0.98).images != at_first_rung(0.0).images)


def test_fewer_steps_as_a_mitigation_move_the_rungs(rungs, attention):
    seen = []
    plan = MitigationPlan.of(["fewer-steps:share=0.5"])
    rungs.evaluate((attention,), 5e-3, 6, silent, mitigations=plan, judge=at_all(seen))
    assert [(reached.evaluation.steps, reached.of) for reached, _ in seen] == [(1, 3), (2, 3)]


def test_without_a_judge_or_rungs_nothing_is_scored_on_the_way(rungs, laboratory, attention):
    told, seen = [], []
    rungs.evaluate((attention,), 5e-3, 6, lambda *step: told.append(step))
    assert [step for step in told if step[0] == "sample"] == [("sample", 24, 24)]
    laboratory.evaluate((attention,), 5e-3, 6, silent, judge=at_all(seen))
    rungs.evaluate((), None, 6, silent, judge=at_all(seen))
    assert seen == []


def test_some_of_the_prompts_give_the_images_that_they_give_among_all(tiny):
    prompts = ["axial brain MRI, upper level", "coronal brain MRI", "sagittal brain MRI", "axial brain MRI"]
    config = SamplingConfig(images=4, steps=2, batch=2)
    every = np.concatenate(list(sample(tiny, prompts, config, seed=3)))
    for places in (range(2), range(2, 4), range(4)):
        some = np.concatenate(list(sample(tiny, prompts, config, seed=3, places=places)))
        np.testing.assert_array_equal(some, every[places.start : places.stop])


def test_too_few_images_at_a_rung_are_refused_before_any_work(laboratory):
    with pytest.raises(
        MemControlError, match=r"rung at 0.5 of the steps: fd@pixels on 16 components needs 17 .*got 16"
    ):
        with_search(laboratory, rungs=[{"share": 0.5, "images": 16}])


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"rungs": "0.5:8,0.25:8"}, r"search: rungs at shares 0.5, 0.25: expected rising ones"),
        ({"rungs": "2:64"}, r"search.rungs: expected SHARE:IMAGES,... with a share of the steps below 1.*got '2:64'"),
        ({"rungs": "0.5"}, r"search.rungs: expected SHARE:IMAGES"),
        ({"rungs": [{"share": 0.5, "images": 0}]}, r"search.rungs.0.images"),
        ({"rungs": "0.5:300"}, r"300 images at a rung, and a candidate is scored by 256: expected no more"),
        ({"checkpoints": True}, r"checkpoints without rungs"),
        ({"eta": 0.5}, r"search.eta"),
    ],
)
def test_bad_rungs_are_named(search, message):
    with pytest.raises(MemControlError, match=message):
        validated({"search": search}, where="tests")


def test_the_option_is_named_where_its_text_is_not_rungs():
    with pytest.raises(MemControlError, match=r"^--rungs 0\.25: expected SHARE:IMAGES,\.\.\. with a share"):
        overridden(RunConfig(), {"search": {"rungs": "0.25"}})
    changed = overridden(RunConfig(), {"search": {"rungs": "0.25:64"}})
    assert changed.search.rungs == (Rung(share=0.25, images=64),)


def test_rungs_are_written_as_text_or_in_full():
    as_text = validated({"search": {"rungs": "0.25:64,0.5:128"}}, where="tests")
    in_full = validated(
        {"search": {"rungs": [{"share": 0.25, "images": 64}, {"share": 0.5, "images": 128}]}}, where="t"
    )
    assert as_text == in_full
    assert validated({"search": {"rungs": "none"}}, where="tests").search.rungs == ()

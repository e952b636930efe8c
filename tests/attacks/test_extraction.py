"""The extraction attack finds what is planted, stays silent on honest images, and goes on after an interruption."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

import memcontrol.sampling
from memcontrol.attacks.controls import extraction_controls, planted_generations
from memcontrol.attacks.extraction import ExtractionAttack, examine, examine_unconditional
from memcontrol.attacks.records import PromptResult
from memcontrol.attacks.rules import RULES, calibrate, distance_ratios, nearest_training
from memcontrol.attacks.summary import summarise
from memcontrol.cache import Cache
from memcontrol.config import SamplingConfig
from memcontrol.data.brain import draw_slices
from memcontrol.errors import MemControlError, RunError, TooFewImages
from memcontrol.pipeline import load_pipeline

SAMPLING = SamplingConfig(steps=3, batch=16)
PROMPTS = [f"axial brain MRI, {level} level, straight" for level in ("lower", "middle", "upper")] + ["a", "b"]


@pytest.fixture(scope="module")
def training():
    return draw_slices(32, seed=0, stream="training", resolution=64).pixels()


@pytest.fixture(scope="module")
def heldout():
    return draw_slices(256, seed=0, stream="copying", resolution=64)


@pytest.fixture(scope="module")
def rules(training, heldout):
    return calibrate(RULES["calibrated"], training, heldout.pixels(), heldout.captions)


@pytest.fixture(scope="module")
def unseen():
    return draw_slices(256, seed=0, stream="fidelity", resolution=64)


def generator(seed=0):
    return np.random.default_rng(seed)


def noise(count=64, seed=0):
    return generator(seed).integers(0, 256, size=(count, 64, 64, 3), dtype=np.uint8)


def few(rules, generations=6):
    return replace(rules, generations=generations, least_group=3)


def attack(frozen, training, base, prompts=PROMPTS, **changes):
    return ExtractionAttack(frozen, prompts, training, **{"rules": few(base), "config": SAMPLING, "seed": 3, **changes})


class Counter:
    """Counts the images that are generated."""

    def __init__(self, monkeypatch):
        self.images, self.real = 0, memcontrol.sampling.images_of_noise
        monkeypatch.setattr(memcontrol.sampling, "images_of_noise", self)

    def __call__(self, frozen, noise, *others, inference):
        self.images += len(noise)
        return self.real(frozen, noise, *others, inference=inference)


@pytest.mark.parametrize("name", RULES)
def test_altered_copies_of_a_training_image_are_extracted(name, rules, training):
    chosen = rules if name == "calibrated" else RULES[name]
    for position in (0, 21):
        images = planted_generations(training[position], chosen.generations, generator(position))
        result = examine(images, training, chosen, index=4, prompt="p")
        assert position in result.extracted
        assert (result.index, result.prompt, result.generations) == (4, "p", chosen.generations)


def test_mirrored_copies_alone_are_extracted_by_the_calibrated_rules(rules, training):
    assert examine(planted_generations(training[3], 64, generator(), ("flip",)), training, rules).extracted == (3,)


def test_two_training_images_in_one_prompt_are_both_extracted(rules, training):
    images = np.concatenate([planted_generations(training[i], 20, generator(i), ("noise",)) for i in (2, 5)])
    result = examine(np.concatenate([images, noise(24)]), training, rules)
    assert result.extracted == (2, 5)
    assert sorted(group.members for group in result.groups) == [tuple(range(20)), tuple(range(20, 40))]


@pytest.mark.parametrize("name", RULES)
def test_independent_noise_is_neither_suspected_nor_extracted(name, rules, training):
    result = examine(noise(), training, rules if name == "calibrated" else RULES[name])
    assert result.groups == ()
    assert result.extracted == ()
    assert result.smallest > 0.2


def test_honest_images_of_one_caption_are_not_suspected(rules, training, unseen):
    for caption in sorted(set(unseen.captions)):
        images = unseen.pixels([i for i, said in enumerate(unseen.captions) if said == caption])
        assert examine(images, training, rules).groups == ()


def test_a_repeated_image_that_is_not_of_the_training_set_is_suspected_and_not_extracted(rules, training, unseen):
    results = [examine(planted_generations(image, 64, generator()), training, rules) for image in unseen.pixels()[:10]]
    assert all(result.groups for result in results)
    assert sum(bool(result.extracted) for result in results) <= 1


def test_more_planted_copies_never_extract_less(rules, training):
    copies, others = planted_generations(training[7], 64, generator()), noise()
    extracted, distances, close = [], [], []
    for planted in range(0, 65, 8):
        result = examine(np.concatenate([copies[:planted], others[planted:]]), training, rules)
        extracted.append(len(result.extracted))
        distances.append(result.smallest)
        close.append(result.close)
    assert extracted == sorted(extracted)
    assert distances == sorted(distances, reverse=True)
    assert close == list(range(0, 65, 8))
    assert (extracted[0], extracted[-1]) == (0, 1)


def test_more_leaking_prompts_extract_a_larger_share(rules, training):
    captions = [f"caption {i}" for i in range(len(training))]
    shares = []
    for leaking in (0, 2, 5, 8):
        made = [planted_generations(training[i], 16, generator(i)) if i < leaking else noise(16, i) for i in range(8)]
        results = [examine(images, training, rules, index=i, prompt=captions[i]) for i, images in enumerate(made)]
        shares.append(summarise(results, captions).share)
    assert shares == [0.0, 0.25, 0.625, 1.0]


def test_controls_show_the_attacks_ceiling_and_floor(rules, training, unseen):
    controls = extraction_controls(
        training, unseen.pixels(), unseen.captions, few(rules, 16), rng=generator(), limit=12
    )
    assert controls.planted == controls.planted_extracted == 12
    assert controls.unseen == controls.unseen_suspected == 12
    assert controls.unseen_extracted <= 2
    assert controls.honest == 12
    assert controls.honest_suspected <= 1


def test_calibrated_distances_are_quantiles_of_honest_ones(rules, training, heldout):
    pixels = heldout.pixels().astype(float) / 255
    nearest = []
    for image in pixels:
        both = [
            np.sqrt(((one - training / 255) ** 2).reshape(32, 4, 16, 4, 16, 3).mean(axis=(2, 4, 5)))
            for one in (image, image[:, ::-1])
        ]
        nearest.append(np.minimum(*[side.max(axis=(1, 2)) for side in both]).min())
    assert rules.verification == pytest.approx(sorted(nearest)[2], abs=1e-9), "1 % of 256, the lower of two"
    distances, _ = nearest_training(heldout.pixels(), training, rules)
    np.testing.assert_allclose(distances, nearest, atol=1e-9)
    stricter = calibrate(rules, training, heldout.pixels(), heldout.captions, edge_quantile=0.0)
    assert stricter.edge < rules.edge
    assert stricter.verification == rules.verification


def test_edges_are_calibrated_on_pairs_of_one_caption(training, heldout):
    pixels, captions = heldout.pixels(), np.array(heldout.captions)
    by_caption = calibrate(RULES["calibrated"], training, pixels, captions).edge
    of_any = calibrate(RULES["calibrated"], training, pixels, [str(i) for i in range(256)]).edge
    assert by_caption < of_any


def test_uncalibrated_rules_and_bad_calibrations_are_refused(training, heldout):
    with pytest.raises(MemControlError, match="calibrate them"):
        examine(noise(), training, RULES["calibrated"])
    with pytest.raises(TooFewImages, match="held-out"):
        calibrate(RULES["calibrated"], training, heldout.pixels([0]), ["a"])
    with pytest.raises(TooFewImages, match="training"):
        calibrate(RULES["calibrated"], training[:0], heldout.pixels(), heldout.captions)
    with pytest.raises(MemControlError, match="one for each"):
        calibrate(RULES["calibrated"], training, heldout.pixels(), ["a"])
    with pytest.raises(MemControlError, match="edge quantile 2"):
        calibrate(RULES["calibrated"], training, heldout.pixels(), heldout.captions, edge_quantile=2)


def test_the_nearest_of_many_training_images_is_that_of_all_at_once(rules, training, heldout, monkeypatch):
    whole = nearest_training(heldout.pixels(), training, rules)
    monkeypatch.setattr("memcontrol.attacks.rules.TRAINING_BLOCK", 5)
    parts = nearest_training(heldout.pixels(), training, rules)
    for made, expected in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(made, expected)


def test_ratios_are_those_of_the_published_formula(training, heldout):
    chosen = replace(RULES["carlini-2023"], neighbours=10)
    pixels = heldout.pixels()[:20]
    ratios, positions = distance_ratios(pixels, training, chosen)
    squared = ((pixels[:, None] / 255 - training[None] / 255) ** 2).mean(axis=(2, 3, 4))
    distances = np.sqrt(squared)
    expected = distances.min(axis=1) / (0.5 * np.sort(distances, axis=1)[:, :10].mean(axis=1))
    np.testing.assert_allclose(ratios, expected, rtol=1e-9)
    np.testing.assert_array_equal(positions, distances.argmin(axis=1))


def test_unconditional_copies_are_extracted_and_honest_images_rarely(rules, training, unseen):
    copies = planted_generations(training[4], 6, generator())
    result = examine_unconditional(np.concatenate([copies, unseen.pixels()[:58]]), training, rules)
    assert 4 in result.extracted
    assert len(result.extracted) <= 3
    assert result.prompt is None
    assert result.close == sum(len(group.members) for group in result.groups)
    assert next(group for group in result.groups if group.training == 4).members[:6] == tuple(range(6))
    assert examine_unconditional(training, training, rules).extracted == tuple(range(32))


def test_the_tiny_model_gives_one_result_for_each_prompt(tiny, training, rules):
    results = list(attack(tiny, training, rules).results())
    assert [result.prompt for result in results] == PROMPTS
    assert [result.index for result in results] == list(range(5))
    assert {result.generations for result in results} == {6}
    assert all(np.isfinite(result.smallest) and result.smallest > 0 for result in results)
    assert all(set(group.members) <= set(range(6)) for result in results for group in result.groups)


def test_generations_follow_from_the_seed_and_the_prompts_position_alone(tiny, training, rules):
    whole = attack(tiny, training, rules)
    alone = whole.images([2])[0].astype(int)
    assert alone.shape == (6, 64, 64, 3)
    assert np.abs(whole.images([1, 2, 4])[1] - alone).max() <= 1
    fewer = attack(tiny, training, rules, ["x", "y", PROMPTS[2]])
    assert np.abs(fewer.images([2])[0] - alone).max() <= 1
    assert np.abs(whole.images([3])[0] - alone).max() > 8
    assert np.abs(attack(tiny, training, rules, seed=4).images([2])[0] - alone).max() > 8
    assert len({image.tobytes() for image in alone}) == 6


def test_a_model_that_gives_training_images_back_is_caught(tiny, training, rules, monkeypatch):
    def leaking(frozen, noise, text, rows, config, inference):
        made = np.stack([training[row] for row in rows])
        return np.clip(made + generator().normal(0, 4, made.shape), 0, 255).astype(np.uint8)

    monkeypatch.setattr(memcontrol.sampling, "images_of_noise", leaking)
    results = list(attack(tiny, training, rules).results())
    assert [result.extracted for result in results] == [(0,), (1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("batch", [6, 16])
def test_an_interrupted_attack_goes_on_and_generates_no_prompt_twice(
    batch, tiny, training, rules, tmp_path, monkeypatch
):
    made = attack(tiny, training, rules, config=SAMPLING.model_copy(update={"batch": batch}))
    expected = list(made.results())
    record, counter = tmp_path / "deep" / "attack.jsonl", Counter(monkeypatch)
    first = list(islice(made.results(record), 2))
    assert counter.images == 12
    assert list(made.results(record)) == expected
    assert counter.images == 30
    assert list(made.results(record)) == expected
    assert counter.images == 30
    assert first == expected[:2]


def test_an_interruption_while_generating_leaves_what_is_finished(tiny, training, rules, tmp_path, monkeypatch):
    record, made = tmp_path / "attack.jsonl", attack(tiny, training, rules)
    real = memcontrol.sampling.images_of_noise

    def interrupted(frozen, noise, text, rows, config, inference):
        if 3 in rows:
            raise KeyboardInterrupt
        return real(frozen, noise, text, rows, config, inference=inference)

    with monkeypatch.context() as patch:
        patch.setattr(memcontrol.sampling, "images_of_noise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(made.results(record))
    assert len(record.read_text().splitlines()) == 2
    assert list(made.results(record)) == list(made.results())


def test_a_last_line_that_was_cut_off_is_done_again(tiny, training, rules, tmp_path, monkeypatch):
    record, made = tmp_path / "attack.jsonl", attack(tiny, training, rules)
    expected = list(made.results(record))
    content = record.read_bytes()
    record.write_bytes(content[:-20])
    counter = Counter(monkeypatch)
    assert list(made.results(record)) == expected
    assert counter.images == 6
    assert record.read_bytes() == content


def test_the_record_of_another_attack_is_refused(tiny, training, rules, tmp_path):
    record = tmp_path / "attack.jsonl"
    next(attack(tiny, training, rules).results(record))
    others = [
        attack(tiny, training, rules, seed=4),
        attack(tiny, training, rules, PROMPTS[:4]),
        attack(tiny, training[1:], rules),
        attack(tiny, training, rules, rules=few(rules, 7)),
        attack(tiny, training, rules, config=SamplingConfig(steps=4, batch=16)),
    ]
    for other in others:
        with pytest.raises(RunError, match="line 1, belongs to another attack"):
            next(other.results(record))
    next(attack(tiny, training, rules, config=SAMPLING.model_copy(update={"images": 99})).results(record))


def test_changed_weights_make_another_attack(tiny, training, rules):
    made = attack(tiny, training, rules)
    before = made.fingerprint()
    bias = tiny.unet.conv_out.bias
    kept = bias.clone()
    bias[0] += 1e-3
    after = made.fingerprint()
    bias.copy_(kept)
    assert before != after
    assert made.fingerprint() == before


@pytest.mark.parametrize("line", ["not json", "[]", "{}", '{"schema": "x", "fingerprint": "y", "groups": 3}'])
def test_a_file_of_something_else_is_refused(line, tiny, training, rules, tmp_path):
    record = tmp_path / "notes.jsonl"
    record.write_text(line + "\n")
    with pytest.raises(RunError, match="line 1, is not a result"):
        next(attack(tiny, training, rules).results(record))
    assert record.read_text() == line + "\n"


def test_results_survive_json(rules, training):
    result = examine(planted_generations(training[1], 64, generator()), training, rules)
    assert PromptResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_unconditional_model_has_one_result_on_all_its_images(ddpm_folders, tmp_path, monkeypatch):
    frozen = load_pipeline(str(ddpm_folders[3]), cache=Cache(tmp_path))
    pixels = generator().integers(0, 256, size=(8, 16, 16, 3), dtype=np.uint8)
    config, record = SamplingConfig(steps=3, batch=8, images=20), tmp_path / "attack.jsonl"
    made = attack(frozen, pixels, RULES["carlini-2023"], ["a", "b"], config=config)
    (result,) = made.results(record)
    assert (result.prompt, result.generations) == (None, 20)
    counter = Counter(monkeypatch)
    assert list(made.results(record)) == [result]
    assert counter.images == 0
    assert summarise([result], ["a"] * 8).reachable == 8
    more = attack(frozen, pixels, RULES["carlini-2023"], ["a", "b"], config=config.model_copy(update={"images": 21}))
    assert more.fingerprint() != made.fingerprint()


def test_prompts_must_be_given_once_and_some(tiny, training, rules):
    with pytest.raises(MemControlError, match="each caption once"):
        attack(tiny, training, rules, ["a", "a"])
    with pytest.raises(MemControlError, match="each caption once"):
        attack(tiny, training, rules, [])
    with pytest.raises(MemControlError, match="calibrate"):
        attack(tiny, training, rules, rules=RULES["calibrated"])


def test_the_summary_counts_images_that_the_prompts_reach(rules, training):
    captions = ["a", "a", "b", *["c"] * 29]
    found = examine(planted_generations(training[1], 64, generator()), training, rules, index=0, prompt="a")
    astray = examine(planted_generations(training[8], 64, generator()), training, rules, index=1, prompt="b")
    summary = summarise([found, astray], captions)
    assert (summary.prompts, summary.suspected_prompts, summary.extracting_prompts) == (2, 2, 2)
    assert summary.extracted == (1, 8)
    assert (summary.reachable, summary.share, summary.elsewhere) == (3, 1 / 3, 1)
    assert summary.low < 1 / 3 < summary.high
    assert summary.generations == 128
    assert summary.smallest == min(found.smallest, astray.smallest)
    assert summary.close_share == 1.0
    with pytest.raises(MemControlError, match="attack training captions"):
        summarise([found], ["x"])


def test_a_mitigation_of_inference_is_in_the_attack_and_keeps_no_record(tiny, tmp_path):
    seen = []

    def blanked(latents, timestep, told, empty):
        seen.append(len(told))
        return empty

    rules = replace(RULES["carlini-2023"], generations=2)
    config = SamplingConfig(images=2, steps=2)
    attack = ExtractionAttack(tiny, ["a face", "a digit"], np.zeros((2, 64, 64, 3), np.uint8), rules, config, 0)
    under = replace(attack, inference=blanked)
    assert not np.array_equal(attack.images([0])[0], under.images([0])[0])
    assert seen == [2]
    with pytest.raises(MemControlError, match="keeps no record"):
        list(under.results(tmp_path / "record.jsonl"))

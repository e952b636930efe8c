"""A configuration goes through YAML unchanged, and a wrong one is answered by one line that names the key."""

import pytest
from pydantic import ValidationError

from memcontrol.config import PRESETS, DataConfig, RunConfig, ScoringConfig, load_config, validated
from memcontrol.errors import MemControlError
from memcontrol.score import direction


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_defaults_go_through_yaml(tmp_path):
    assert load_config(written(tmp_path, RunConfig().to_yaml())) == RunConfig()


def test_changed_values_go_through_yaml(tmp_path):
    config = validated(
        {
            "data": {"source": "faces", "train_size": 7, "repeat": "0.5:4", "captions": "none"},
            "model": "folder/pipeline",
            "learning_rate": [1e-5, 1e-3],
            "seed": 3,
            "tuning": {"steps": 20, "epsilon": 1e-9, "mixed_precision": "bf16"},
            "sampling": {"guidance": 4.0},
            "scoring": {"objectives": ["amd@pixels"], "reported": [], "reward_weights": [1.0]},
            "search": {"sampler": "tpe", "trajectory_rates": [3e-4]},
        },
        where="test",
    )
    assert load_config(written(tmp_path, config.to_yaml())) == config


def test_keys_left_out_take_their_defaults(tmp_path):
    config = load_config(written(tmp_path, "seed: 5\ntuning: {steps: 20}\n"))
    assert (config.seed, config.tuning.steps, config.tuning.batch) == (5, 20, RunConfig().tuning.batch)
    assert load_config(written(tmp_path, "")) == RunConfig()


def test_rates_may_be_written_without_a_decimal_point(tmp_path):
    """YAML reads 3e-4 as text."""
    assert load_config(written(tmp_path, "learning_rate: [3e-4, 1e-2]\n")).learning_rate == (3e-4, 1e-2)


@pytest.mark.parametrize(
    ("text", "key", "got"),
    [
        ("stepz: 3", "stepz", "3"),
        ("tuning: {stepz: 3}", "tuning.stepz", "3"),
        ("tuning: {steps: 0}", "tuning.steps", "0"),
        ("tuning: {steps: many}", "tuning.steps", "'many'"),
        ("tuning: {warmup: 1.0}", "tuning.warmup", "1.0"),
        ("tuning: {ema_decay: 1}", "tuning.ema_decay", "1"),
        ("tuning: {mixed_precision: half}", "tuning.mixed_precision", "'half'"),
        ("sampling: {guidance: 0.5}", "sampling.guidance", "0.5"),
        ("data: {train_size: -1}", "data.train_size", "-1"),
        ("data: {bad_images: maybe}", "data.bad_images", "'maybe'"),
        ("scoring: {objectives: []}", "scoring.objectives", "[]"),
        ("search: {budget: 0}", "search.budget", "0"),
        ("search: {sampler: best}", "search.sampler", "'best'"),
        ("seed: -1", "seed", "-1"),
        ("data: 3", "data", "3"),
        ("- seed", "the whole file", "['seed']"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(tmp_path, text, key, got):
    path = written(tmp_path, text)
    with pytest.raises(MemControlError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {key}: ")
    assert f"(got {got})" in message
    assert "\n" not in message


def test_a_missing_file_and_text_that_is_not_yaml(tmp_path):
    with pytest.raises(MemControlError, match=r"no configuration file .*absent\.yaml: name an existing"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(MemControlError, match="is not YAML") as caught:
        load_config(written(tmp_path, "a: [1, 2\nb: }"))
    assert "\n" not in str(caught.value)


def test_values_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_expand(name, tmp_path):
    path = written(tmp_path, f"scoring: {{objectives: {name}}}")
    assert load_config(path).scoring.objectives == PRESETS[name]


def test_objectives_may_be_a_list_or_text_with_commas():
    names = ("fd@pixels", "amd@latents")
    assert ScoringConfig(objectives=names).objectives == names
    assert ScoringConfig.model_validate({"objectives": "fd@pixels, amd@latents"}).objectives == names


def test_default_scores_exist():
    scoring = RunConfig().scoring
    assert scoring.objectives == ("fd@efficientnet-lite0", "copy_gap@pixels")
    assert {direction(name) for name in scoring.objectives + scoring.reported} == {"lower", "higher"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_score_of_a_preset_exists_and_is_minimised(name):
    assert {direction(score) for score in PRESETS[name]} == {"lower"}


def test_a_source_that_is_left_out_is_the_usual_one():
    names = ScoringConfig.model_validate({"objectives": "fd,extraction, amd, own:score", "reported": ["kid"]})
    expected = ("fd@efficientnet-lite0", "extraction@calibrated", "amd@efficientnet-lite0", "own:score")
    assert (names.objectives, names.reported) == (expected, ("kid@efficientnet-lite0",))


def test_a_folder_is_the_same_with_the_slash_that_completion_adds():
    assert DataConfig(source="photos/") == DataConfig(source="photos")
    assert DataConfig(source="/").source == "/"


def test_encoder_weights_are_a_mapping_or_pairs():
    given = ScoringConfig.model_validate({"encoder_weights": ["inception=a/b.pth", "clip=x=y"]})
    assert given.encoder_weights == {"inception": "a/b.pth", "clip": "x=y"}
    with pytest.raises(ValidationError, match="expected NAME=PATH"):
        ScoringConfig.model_validate({"encoder_weights": ["inception"]})


def test_the_copying_set_grows_with_the_training_set():
    assert [DataConfig(train_size=n).copying_size for n in (32, 64, 200)] == [512, 512, 1600]
    assert DataConfig(train_size=200, copying=90).copying_size == 90

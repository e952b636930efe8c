"""A model card says what was trained and measured, its snippets load the model, and it gives no one's data away."""

import json
import os
import re

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from mixed_masks import PARTS, disturb, mask_of, predicted

from memcontrol.errors import MaskError, ModelError, RunError
from memcontrol.mask_records import Confirmed
from memcontrol.model_card import CardFacts, write_card
from memcontrol.pipeline import load_unet, model_folder
from memcontrol.score import Score
from memcontrol.tuned_tensors import save_tuned

SCORE = {"value": 12.1, "low": 11.2, "high": 13.0, "n": 256, "better": "lower"}
FACTS = CardFacts(
    base_model="tiny",
    data_name="brain",
    data_n=32,
    data_sha256="sha256:abc",
    steps=20,
    learning_rate=1e-3,
    seed=5,
    batch=8,
)

ROUNDING = 1e-5
"""Of a U-Net that computes some of its layers as matrix products, beside one that does not."""


def facts_of(**changes):
    return CardFacts(**{name: getattr(FACTS, name) for name in FACTS.__dataclass_fields__} | changes)


@pytest.fixture(scope="module")
def released(tiny, tmp_path_factory):
    """A released model that every method tuned, with its card, and what it computes."""
    frozen, folder = tiny, tmp_path_factory.mktemp("released")
    mask = mask_of(frozen.unet, *PARTS)
    with mask.tuned(frozen.unet) as tuning:
        disturb(tuning.parameters.values())
        with tuning.folded():
            frozen.pipeline.save_pretrained(folder)
            expected = predicted(frozen.unet)
        tuning.save(folder)
        save_tuned(folder, mask=mask, tuning=tuning, unet=frozen.unet, base=mask.model)
    write_card(folder, mask=mask, facts=FACTS)
    return folder, expected


def snippets(folder):
    """The Python of a card, by a word that is in it alone."""
    codes = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    words = {"hashlib": "plain", "load_tuned": "memcontrol", "load_lora_weights": "lora"}
    return {next((name for word, name in words.items() if word in code), "pipeline"): code for code in codes}


def ran(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names["pipeline"]


def test_every_snippet_loads_the_released_model(released, monkeypatch):
    folder, expected = released
    monkeypatch.chdir(folder)
    found = snippets(folder)
    assert list(found) == ["pipeline", "plain", "memcontrol", "lora"]
    for name in ("pipeline", "plain", "memcontrol"):
        torch.testing.assert_close(predicted(ran(found[name]).unet), expected, rtol=0, atol=ROUNDING)
    lora = ran(found["lora"]).unet
    assert (predicted(lora) - predicted(load_unet("tiny"))).abs().max() > 1e-3


def another_base(folder, change):
    """The shipped pipeline with one number changed, saved."""
    pipeline = DiffusionPipeline.from_pretrained(model_folder("tiny"))
    with torch.no_grad():
        pipeline.unet.get_parameter(change).flatten()[0] += 1e-3
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("name", "error"), [("plain", ValueError), ("memcontrol", ModelError)])
def test_snippets_refuse_another_base_model(released, monkeypatch, tmp_path, name, error):
    folder, _ = released
    monkeypatch.chdir(folder)
    other = another_base(tmp_path / "other", "time_embedding.linear_1.bias")
    code = snippets(folder)[name].replace('model_folder("tiny")', json.dumps(other))
    with pytest.raises(error, match=r"belongs to another base model|was tuned on tiny"):
        ran(code)
    with pytest.raises(
        (ValueError, MaskError), match=r"belongs to another base model|made for UNet2DConditionModel tiny"
    ):
        ran(snippets(folder)[name].replace('"tiny"', '"tiny-sd"'))


def test_stock_code_takes_a_base_that_differs_only_in_what_is_replaced(released, monkeypatch, tmp_path):
    folder, expected = released
    monkeypatch.chdir(folder)
    other = another_base(tmp_path / "other", "conv_in.weight")
    code = snippets(folder)["plain"].replace('model_folder("tiny")', json.dumps(other))
    torch.testing.assert_close(predicted(ran(code).unet), expected, rtol=0, atol=ROUNDING)


def test_the_head_is_what_the_hub_reads(released):
    card = ModelCard.load(released[0] / "README.md")
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "text-to-image"
    assert card.data.tags == ["memcontrol", "diffusers", "difffit", "full", "lora", "svdiff"]
    assert card.data.license is None
    assert card.data.base_model is None, "the hub has no model of that name"
    assert "None is stated here, and it is yours to add (`license:`" in card.text


def test_a_base_model_on_the_hub_is_named_in_the_head(tmp_path):
    mask = mask_of(load_unet("tiny"), "full")
    card = ModelCard.load(write_card(tmp_path, mask=mask, facts=facts_of(base_model="owner/model")))
    assert card.data.base_model == "owner/model"


def test_scores_stand_with_their_intervals_and_with_what_they_were_measured_on(tmp_path):
    mask = mask_of(
        load_unet("tiny"),
        "full",
        scores={"fd@pixels": SCORE, "kid@pixels": SCORE | {"low": None, "high": None}},
        provenance={"steps": 300, "data": {"name": "brain", "n": 32, "sha256": "sha256:other"}},
    )
    confirmed = Confirmed((101, 102), {"fd@pixels": SCORE | {"value": 14.0, "n": 2}})
    object.__setattr__(mask, "confirmed", confirmed)
    monitored = {"copy_gap@pixels": Score(0.00123, -0.001, 0.003, 64, "lower")}
    facts = facts_of(
        monitored=monitored, monitored_step=15, mitigations=("rwa", "inference-noise"), notes=("epsilon 8",)
    )
    text = write_card(tmp_path, mask=mask, facts=facts).read_text()
    assert "This model itself, while it was trained at step 15:" in text
    assert "| copy_gap@pixels | 0.00123 | -0.001 to 0.003 | 64 | lower |" in text
    assert "fresh seeds (101, 102)" in text
    assert "| fd@pixels | 14 | 11.2 to 13 | 2 | lower |" in text
    assert "on a training of its own after 300 steps" in text
    assert "| fd@pixels | 12.1 | 11.2 to 13 | 256 | lower |" in text
    assert "| kid@pixels | 12.1 | not known | 256 | lower |" in text
    assert "found on other images" in text
    assert "inference-noise works while sampling, and is no part of the saved weights." in text
    assert "\nepsilon 8\n" in text
    assert "| peak learning rate | 0.001 |" in text
    assert "| mitigations | rwa, inference-noise |" in text
    assert "| fingerprint of the data | `sha256:abc` |" in text
    assert f"`{mask.model.weights}`" in text


@pytest.mark.parametrize("data", ["brain", None, {"name": "brain"}])
def test_a_mask_that_does_not_say_on_which_images_it_was_found_has_a_card(tmp_path, data):
    mask = mask_of(load_unet("tiny"), "full", provenance={"data": data})
    assert "other images" not in write_card(tmp_path, mask=mask, facts=FACTS).read_text()


def test_a_mask_without_scores_says_so(tmp_path):
    text = write_card(tmp_path, mask=mask_of(load_unet("tiny"), "full"), facts=FACTS).read_text()
    assert "Nothing: no scores were recorded for this mask or for this model." in text
    assert "What was measured says nothing of other attacks." in text
    assert "| ends | full | 1,168 |" in text
    assert "Frozen: last, and all that no group names." in text


def test_nothing_of_the_machine_or_of_the_images_is_in_it(tmp_path):
    where = tmp_path / "ward-7"
    (where / "sd").mkdir(parents=True)
    settings = {"settings": {"data": {"source": str(where / "scans")}}}
    mask = mask_of(load_unet("tiny"), "full", model=str(where / "sd"), provenance=settings)
    facts = facts_of(base_model=str(where / "sd"), data_name=str(where / "scans"))
    (tmp_path / "out").mkdir()
    text = write_card(tmp_path / "out", mask=mask, facts=facts).read_text()
    assert "ward-7" not in text
    assert "sd, fine-tuned on 32 images (scans)" in text


def test_names_cannot_break_the_cards_tables(tmp_path):
    mask = mask_of(load_unet("tiny"), "full", name="a | b\n# c {{ facts }}")
    assert "\n# a \\| b # c {{ facts }}\n" in write_card(tmp_path, mask=mask, facts=FACTS).read_text()


def test_the_words_private_and_safe_are_not_in_it(released):
    prose = re.sub(r"```python.*?```", "", (released[0] / "README.md").read_text(), flags=re.DOTALL)
    words = re.findall(r"[a-z]+", prose.lower())
    assert {"private", "safe", "safely", "anonymous"}.isdisjoint(words)


def test_a_card_that_cannot_be_written_is_one_line_and_leaves_the_old_one(tmp_path, monkeypatch):
    mask = mask_of(load_unet("tiny"), "full")
    before = write_card(tmp_path, mask=mask, facts=FACTS).read_text()

    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunError, match=r"cannot write .*README\.md \(No space left on device\)"):
        write_card(tmp_path, mask=mask, facts=facts_of(seed=6))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == before

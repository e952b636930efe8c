"""Confirmed scores are printed beside the search's, with their number of seeds, and words say how they differ."""

import io

import pytest
from finished_run import FD, GAP, front_content, member, score
from rich.console import Console
from schema_problems import content_problems

from memcontrol.report import write_report
from memcontrol.report.closing import closing_json
from memcontrol.report.confirmed import UNCONFIRMED, confirmed_sentences, confirmed_table

OTHER = "fd@latents"


def means(fd, gap):
    """Scores over two seeds whose values are 10 % apart, the second larger."""
    found = {}
    for name, value in ((FD, fd), (GAP, gap), (OTHER, 5.0)):
        found[name] = score(value, 0.5 * abs(value)) | {"values": [0.95 * value, 1.05 * value]}
    return {"seeds": [101, 102], "scores": found}


def row(name, kind, trial, fd, gap):
    return {"name": name, "kind": kind, "trial": trial, "learning_rate": 3e-4, "steps": 300} | means(fd, gap)


def confirmed_content(held_out="confirmation"):
    members = [member(3, 11.0, 0.02), member(1, 14.0, 0.01), member(7, 30.0, 0.001, bits="00001")]
    members[0] |= {"confirmed": means(13.2, 0.025), "dominated_after_confirmation": False, "dominated_by": []}
    by = ["trial-003", "full-0.0003", "trial-003-random"]
    members[1] |= {"confirmed": means(16.8, 0.03), "dominated_after_confirmation": True, "dominated_by": by}
    front = front_content(members)
    rows = [row("full-0.0003", "full", None, 12.5, 0.02), row("trial-003-random", "random", 3, 13.0, 0.02)]
    scores = [{"name": n, "better": "lower", "objective": n != OTHER} for n in (FD, GAP, OTHER)]
    held = {"set": held_out, "fidelity": 512, "copying": 512}
    front["confirmation"] = {"seeds": [101, 102], "held_out": held, "scores": scores, "rows": rows}
    for one in members:
        one.setdefault("dominated_after_confirmation", None)
    return front


def shown(front, width=110, **options):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(confirmed_table(front, **options))
    return console.export_text()


def test_the_table_has_both_values_the_interval_and_the_number_of_seeds():
    text = shown(confirmed_content())
    lines = [line.split() for line in text.splitlines()]
    first = lines.index(["trial", "3", "11.0", "→", "13.2", "0.0200", "→", "0.0250", "5.00"])
    assert lines[first + 1] == ["6.60", "to", "19.8", "0.0125", "to", "0.0375", "2.50", "to", "7.50"]
    assert ["trial", "1*", "14.0", "→", "16.8", "0.0100", "→", "0.0300", "5.00"] in lines
    assert ["full", "12.0", "→", "12.5", "0.0900", "→", "0.0200", "5.00"] in lines
    assert ["random,", "13.0", "0.0200", "5.00"] in lines
    caption = " ".join(text.split())
    assert "mean over n = 2 fresh seeds, on held-out images that the search did not use" in caption
    assert "*: dominated here" in caption
    assert "trial 7" not in text


def test_the_table_fits_plain_and_narrow_terminals():
    text = shown(confirmed_content(), width=60, ascii_only=True)
    assert "→" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text


def test_the_words_say_how_confirmed_scores_differ_and_what_dominates():
    assert confirmed_sentences(confirmed_content()) == [
        "Trained again with 2 fresh seeds and scored on held-out images that the search did not use, 2 masks have "
        "fd 20 % higher and copy_gap 0.0125 higher, on average, than in the search.",
        "Trial 1 is dominated by trial 3, full fine-tuning and a random mask of trial 3's size after confirmation; "
        "it stays listed.",
        "Against a random mask of its size, trial 3 has fd 0.200 higher (0.0729 to 0.327), "
        "copy_gap 0.00500 higher (0.00182 to 0.00818).",
        "1 mask on the front is unconfirmed.",
    ]


def test_differences_within_noise_and_of_one_seed_are_called_so():
    front = confirmed_content()
    random = front["confirmation"]["rows"][1]["scores"]
    random[FD]["values"] = [14.0, 12.0]
    assert "fd 0.200 higher (-20.9 to 21.3, within noise)" in confirmed_sentences(front)[2]
    front["confirmation"]["rows"][1] |= {"seeds": [101]}
    for one in random.values():
        one["values"] = one["values"][:1]
    assert "fd 1.46 lower (one seed)" in confirmed_sentences(front)[2]


def test_scores_on_the_searchs_own_images_are_called_so():
    front = confirmed_content("search")
    assert "on the search's own held-out images" in confirmed_sentences(front)[0]
    assert "the search's own held-out images" in " ".join(shown(front).split())


def test_an_unconfirmed_front_is_called_so_and_one_that_trains_nothing_is_not():
    assert confirmed_sentences(front_content([member(3, 11.0, 0.02)])) == [UNCONFIRMED]
    assert confirmed_sentences(front_content([member(3, 11.0, 0.02, bits="00000")])) == []


def test_json_has_the_confirmation_and_reads_fronts_of_before():
    content = closing_json(confirmed_content())
    assert content["front"][1]["dominated_by"] == ["trial-003", "full-0.0003", "trial-003-random"]
    assert content["confirmation"]["seeds"] == [101, 102]
    assert content["confirmed_summary"] == confirmed_sentences(confirmed_content())
    assert content_problems("closing", content, closed=True) == []
    before = closing_json(front_content([member(3, 11.0, 0.02)]))
    assert (before["confirmation"], before["front"][0]["dominated_after_confirmation"]) == (None, None)


def test_confirmed_points_are_drawn_beside_the_searchs(finished, picture_of):
    write_report(finished)
    plain = picture_of(finished.picture)
    finished.write_json(finished.front, confirmed_content())
    write_report(finished)
    drawn = picture_of(finished.picture)
    # Sky blue is that of random masks alone.
    sky = [(abs(picture - [0x56, 0xB4, 0xE9]).max(axis=2) < 12).sum() for picture in (plain, drawn)]
    assert sky[0] == 0
    assert sky[1] > 10


@pytest.mark.parametrize("word", ["private", "safe"])
def test_never_promises_either(word):
    text = shown(confirmed_content()) + " ".join(confirmed_sentences(confirmed_content()))
    assert word not in text.lower().split()

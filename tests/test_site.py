"""The docs site: every page is in the navigation, every link and heading is there, and every snippet runs."""

import re
import shlex
from pathlib import Path

import commands_page
import formats_page
import pytest
import terms_table
import yaml
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.config import DataConfig
from memcontrol.data import load_dataset

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
RUN_ELSEWHERE = {"python.md"}
"""Pages whose Python snippets a test of their own runs."""


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose themes may name Python objects."""


def nav_pages(part):
    """Every page that a part of the navigation names."""
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for one in parts for page in nav_pages(one)]


def without_code(text):
    """A page without blocks of code and inline code, where brackets are no links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!\[)`[^`\n]*`(?!\])", "code", text)


def anchors(page):
    """What its headings can be linked to by."""
    headings = re.findall(r"^#+ (.+)$", without_fences(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {slug(heading) for heading in headings}


def without_fences(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def slug(heading):
    """A heading as Python-Markdown's table of contents names it."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    named = nav_pages(site["nav"])
    assert sorted(named) == [page.name for page in PAGES]
    assert site["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & site.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        inside = place.is_relative_to(DOCS.resolve()) or place == page
        if not (inside and place.is_file()) or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("[a](b.md) and ![c](d.svg)", ["b.md", "d.svg"]),
        ("`[a](b.md)`", []),
        ("[`a`](b.md#c)", ["b.md#c"]),
        ("    code [a](b.md)", []),
    ],
)
def test_links_are_found_outside_code(text, links):
    assert LINK.findall(without_code(text)) == links


def test_generated_parts_are_up_to_date():
    for part in (commands_page, formats_page, terms_table):
        assert part.PART.read() == part.text(), f"run python {part.PART.program}"


@pytest.mark.parametrize(("path", "text"), formats_page.files().items(), ids=lambda one: getattr(one, "stem", ""))
def test_schema_files_are_up_to_date(path, text):
    assert path.read_text(encoding="utf-8") == text, "run python tests/formats_page.py"


def test_there_is_no_file_for_a_schema_that_there_is_not():
    assert set(formats_page.SCHEMAS.iterdir()) == set(formats_page.files())


@pytest.mark.parametrize("name", commands_page.commands())
def test_every_command_has_an_example_in_its_help_that_the_program_takes(name):
    command = commands_page.commands()[name]
    example = command.help.partition("Example: ")[2].partition("\n\n")[0].strip()
    assert example.startswith(f"memcontrol {name}")
    options = {one for parameter in command.params for one in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in shlex.split(example) if word.startswith("--")} <= options
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout
    assert example in shown


def test_snippets_in_python_are_run_by_a_test():
    with_snippets = {page.name for page in PAGES if "```python" in page.read_text(encoding="utf-8")}
    assert with_snippets - RUN_ELSEWHERE == {"data.md", "start.md"}


def snippet(page):
    (only,) = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return only


def test_the_folder_that_the_page_on_data_makes_is_one_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet("data.md"), "docs/data.md", "exec"), {})
    config = DataConfig(source="photos", train_size=32, fidelity=64, copying=64, confirmation=64)
    dataset = load_dataset(config, resolution=32, seed=0)
    assert len(dataset.training) == 32
    assert dataset.training.captions[0].startswith("a handwritten ")


def test_the_pipeline_that_the_first_page_samples_from_makes_an_image(tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    from memcontrol.pipeline import model_folder

    monkeypatch.chdir(tmp_path)
    StableDiffusionPipeline.from_pretrained(model_folder("tiny")).save_pretrained("tuned")
    exec(compile(snippet("start.md").replace("=20", "=2"), "docs/start.md", "exec"), {})
    assert (tmp_path / "slice.png").is_file()


def test_the_metadata_that_the_page_on_data_shows_is_read(tmp_path):
    from PIL import Image

    block = re.search(r"^    file_name,text.*?\n\n", (DOCS / "data.md").read_text(encoding="utf-8"), re.M | re.S)
    lines = [line.strip() for line in block[0].strip().splitlines()]
    more = [f"{number:04d}.png,one more,p{number},{('train', 'test')[number % 2]}" for number in range(3, 30)]
    (tmp_path / "metadata.csv").write_text("\n".join([*lines, *more]))
    for number in range(1, 30):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number:04d}.png")
    dataset = load_dataset(DataConfig(source=str(tmp_path), train_size=8), resolution=32, seed=0)
    assert len(dataset.training) == 8
    assert dataset.training.subjects is not None


def test_pages_promise_nothing():
    for page in PAGES:
        text = page.read_text(encoding="utf-8").lower()
        assert not re.search(r"\b(privacy-preserving|guarantees? that|is safe|are safe)\b", text), page.name

"""CITATION.cff says what pyproject.toml says, in the form that its format asks for."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
REQUIRED = {"authors", "cff-version", "message", "title"}
KNOWN = REQUIRED | {"abstract", "keywords", "license", "references", "type", "version"}


def test_it_has_the_keys_of_its_format():
    assert CITATION.keys() >= REQUIRED
    assert CITATION.keys() <= KNOWN
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    for reference in CITATION["references"]:
        assert reference.keys() >= {"authors", "title", "type"}


def test_it_agrees_with_the_package():
    assert CITATION["title"].lower() == PROJECT["name"]
    assert str(CITATION["version"]) == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["authors"] == PROJECT["authors"]
    assert CITATION["abstract"].rstrip(".") == PROJECT["description"]
    assert CITATION["keywords"] == PROJECT["keywords"]

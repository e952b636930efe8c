"""`memcontrol compare`: options make the grid, bad ones are one line, and a run prints and writes its tables."""

import json

import pytest
import yaml
from small_comparison import SMALL
from typer.testing import CliRunner

from memcontrol.cli import app


def run(*args, **environment):
    return CliRunner().invoke(app, ["compare", *map(str, args)], env=environment or None)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in SMALL.items() if key not in ("grids", "seeds")}))
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "full,normal"], "unknown method 'normal': did you mean norm"),
        (["--mitigations", "none,rwaa"], 'unknown mitigation "rwaa": did you mean rwa'),
        (["--masks", "nowhere.json"], "no mask file nowhere.json"),
        (["--seeds", "five"], "--seeds five: 'five' is no seed: expected whole numbers"),
        (["--rate", "full"], "expected METHOD=RATE, such as full=3e-3"),
        (["--columns", "fd@latents"], "column fd@latents is not measured here"),
        (["--objectives", "fd@pixel"], 'unknown encoder "pixel"'),
        (["--config", "nowhere.yaml"], "no configuration file nowhere.yaml"),
        (["--workers", "many"], "--workers many: expected auto or a number"),
        (["--workers", "²"], "--workers ²: expected auto or a number"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(options, message, config, tmp_path):
    given = [] if "--config" in options else ["--config", config]
    result = run(*given, "--out", tmp_path / "run", *options)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert message in result.stderr
    assert result.stderr.startswith("memcontrol: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_comparison_prints_its_tables_and_goes_on_with_another_row(config, tmp_path):
    out = tmp_path / "run[a]"
    given = ["--config", config, "--seeds", "3", "--workers", "1", "--out", out]
    result = run(*given, "--methods", "full", NO_COLOR="1", COLUMNS="100")
    assert result.exit_code == 0, result.output
    assert "full, seed 3  1/1" in result.stdout
    assert f"Written to {out}\n" in result.stdout
    assert "n = 1 seed (3)" in " ".join(result.stdout.split())
    more = run(*given, "--methods", "norm", "--mitigations", "none", "--columns", "fd@pixels", "--json")
    assert more.exit_code == 0, more.output
    events = [json.loads(line) for line in more.stdout.splitlines()]
    assert [event["work"] for event in events if event["event"] == "finished"] == ["norm, seed 3"]
    result = events[-1]
    assert (result["event"], result["columns"]) == ("result", ["fd@pixels"])
    assert [row["name"] for row in result["cells"]] == ["full", "norm"]
    assert result["cells"][1]["against_full"]["fd@pixels"]["n"] == 1
    assert (out / "table.md").read_text().count("| norm | 1 |") == 2
    assert (out / "comparison.png").exists() is False, "one column alone is no picture"

"""A finished search that was confirmed on two seeds, as the command line makes it."""

from types import SimpleNamespace

import pytest
import yaml
from small_run import SMALL
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.run import RunFolder


@pytest.fixture(scope="session")
def confirmed(cache_folder, space_file, tmp_path_factory):
    """An undisturbed search and confirmation, to be read only: folder, configuration file, what was printed."""
    config = tmp_path_factory.mktemp("config") / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL | {"space": str(space_file)}))
    path = tmp_path_factory.mktemp("runs") / "run"
    args = ["search", "--config", str(config), "--workers", "1", "--out", str(path)]
    result = CliRunner().invoke(app, args, env={"NO_COLOR": "1", "COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    return SimpleNamespace(folder=RunFolder(path), args=args, printed=result.stdout)


@pytest.fixture
def copied(confirmed, tmp_path):
    """The same folder, to be spoiled."""
    import shutil

    shutil.copytree(confirmed.folder.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")

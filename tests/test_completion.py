"""The shell completes names of spaces, data, models and formats, and offers files where none fits."""

import os
import subprocess
import sys

import pytest

from memcontrol.cli.options import starting
from memcontrol.cli.schema import formats_starting
from memcontrol.space import space_names
from memcontrol.terms import DATA

PROGRAM = "import sys; from memcontrol.cli import app; sys.argv[0] = 'memcontrol'; app(prog_name='memcontrol')"


def completed(*words):
    """What bash would be offered for the last of these words."""
    environment = {
        **os.environ,
        "_MEMCONTROL_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["memcontrol", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("search", "--space", "lora"), ["lora-blocks", "lora-ranks"]),
        (("search", "--data", "f"), ["faces"]),
        (("schema", "tr"), ["transfer-config", "transfer"]),
        (("doc",), ["doctor"]),
    ],
)
def test_names_are_completed(words, offered):
    assert completed(*words) == offered


def test_nothing_is_offered_where_no_name_fits_so_that_the_shell_offers_files():
    assert starting(DATA)("./pho") == []
    assert starting(DATA)("") == list(DATA)
    assert formats_starting("nothing") == []
    assert starting(space_names())("stage") == ["stage-kinds", "stages"]


def test_a_shell_can_be_given_the_completion(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--show-completion", "bash"],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_MEMCONTROL_COMPLETE=complete_bash" in shown.stdout

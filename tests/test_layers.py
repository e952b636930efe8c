"""A module imports only from modules above it in DESIGN.md's list, and what the command line loads is light."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "memcontrol"

# DESIGN.md's list, with the files that a listed module was divided into before it, and methods before groups: how many
# numbers a group trains is its method's to say.
ORDER = (
    "errors",
    "plain_files",
    "fingerprint",
    "cache",
    "measures",
    "terms",
    "config",
    "data",
    "pipeline",
    "tracing",
    "space",
    "methods",
    "groups",
    "finetuning",
    "sampling",
    "encoders",
    "mitigations",
    "metrics",
    "attacks",
    "score",
    "mask_records",
    "mask_fit",
    "mask",
    "random_masks",
    "carrying",
    "run_documents",
    "run",
    "study",
    "exporting",
    "importing",
    "tuned_tensors",
    "model_card",
    "monitoring",
    "releasing",
    "comparison",
    "confirming",
    "transferring",
    "planning",
    "auditing",
    "installation",
    "schemas",
    "report",
    "cli",
)


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level module of every import of memcontrol, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f"memcontrol.(relative, level {node.level})"]
        elif isinstance(node, ast.ImportFrom) and node.module == "memcontrol":
            names = [f"memcontrol.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            if name.startswith("memcontrol."):
                yield node.lineno, name.split(".")[1]


def violations(layer: str, source: str) -> list[str]:
    """The imports of one module that are not from above its layer."""
    above = ORDER[: ORDER.index(layer) + 1]
    return [f"line {line}: {layer} imports {name}" for line, name in imported_names(source) if name not in above]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_layer():
    assert {layer_of(path) for path in modules()} <= {*ORDER, "assets"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_come_from_above(path):
    assert violations(layer_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from memcontrol.study.front import Front",
        "import memcontrol.cli",
        "from memcontrol import study",
        "def later():\n    from memcontrol.report import tables",
        "from .cache import Cache",
    ],
)
def test_an_import_from_below_is_found(source):
    assert len(violations("groups", source)) == 1


def test_imports_from_above_and_from_the_same_layer_are_allowed():
    assert (
        violations("data", "from memcontrol.errors import DataError\nfrom memcontrol.data.images import ImageSet") == []
    )


def loaded_modules(statement: str, tmp_path: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import memcontrol", "import memcontrol.cli"])
def test_importing_the_package_and_the_command_line_loads_nothing_heavy(statement, tmp_path):
    heavy = {"torch", "diffusers", "transformers", "optuna", "matplotlib", "scipy", "pandas", "faiss", "nibabel"}
    assert loaded_modules(statement, tmp_path) & heavy == set()

"""The notebook runs from top to bottom, with smaller settings than it has, and is kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
SMALLER = "BUDGET, STEPS, IMAGES = 3, 6, 24"


@pytest.fixture
def notebook():
    return nbformat.read(TOUR, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}
    nbformat.validate(notebook)


# Jupyter's client meets asyncio's and zmq's own warnings, which are not this project's.
@pytest.mark.filterwarnings("default")
def test_it_runs_and_tells_copies_from_honest_images(notebook, tmp_path, cache_folder):
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert parameters.source.startswith(SMALLER.partition("=")[0])
    parameters.source = SMALLER
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    gaps = {line.split()[0]: line.split() for line in printed.splitlines() if " p = " in line}
    assert float(gaps["copies"][1]) > 0.1 > float(gaps["honest"][1])
    assert float(gaps["copies"][-1]) < 0.05
    assert (tmp_path / "tuned" / "model_index.json").is_file()

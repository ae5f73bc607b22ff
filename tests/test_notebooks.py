"""Every notebook runs from top to bottom, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path("colab").glob("*.ipynb"))
# Half a minute or more. That of linear attention takes as long, and stays: one of them in each run.
LONG = (
    "attention_methods",
    "in_context_regression",
    "pavlovian",
    "random_feature_attention",
    "swap_the_attention",
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if p.stem in LONG else p for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as a user has
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "."}})
    client.execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "display_data"
    ]
    assert any("image/png" in output.data for output in shown)

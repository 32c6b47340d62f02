"""Every notebook runs from top to bottom on a study, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


FIGURES = {"explore_study.ipynb": 2, "distil_in_python.ipynb": 1, "tutorial.ipynb": 0}


SLOW = {"distil_in_python.ipynb", "tutorial.ipynb"}  # they annotate and train


@pytest.mark.parametrize("path", [
    pytest.param(path, marks=pytest.mark.slow if path.name in SLOW else (), id=path.name) for path in NOTEBOOKS
])  # fmt: skip
def test_notebook_runs(path: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "FINDISTILL_STUDY" in path.read_text(encoding="utf-8"):  # the others create what they need
        monkeypatch.setenv("FINDISTILL_STUDY", str(request.getfixturevalue("study") / "moon"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    expected = (
        "5 texts to label next", "## Licence", "| texts | csv | the owner's |", "licence: the-owner-s, as its card says",
        "to https://huggingface.co/me/news-student, a private",
        "export.push_to_hub=me/news-votes logger=none export.dry_run=false", "the texts are not included",
    )  # fmt: skip
    assert path.name != "tutorial.ipynb" or [words for words in expected if words not in printed] == [], printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == FIGURES[path.name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)

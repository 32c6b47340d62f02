"""The wheel carries the configuration and the package data, and works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    [path] = out.glob("*.whl")
    return path


def test_it_holds_configuration_and_package_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"findistill/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    suffixes = (".yaml", ".j2", ".mplstyle", ".txt")  # read by the code beside them
    data = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/findistill").rglob("*") if path.suffix in suffixes}
    assert data <= names
    assert {
        "findistill/data/demo/corpus.jsonl",
        "findistill/help.txt",
        "findistill/models/known_sizes.json",
        "findistill/py.typed",
        "findistill/report/published.yaml",
        "findistill/report/findistill.mplstyle",
        "findistill/report/templates/report.html.j2",
        "findistill/methods/annotate/report.yaml",
        "findistill/methods/augment/prompts.yaml",
        "findistill/methods/export/run.py.txt",
        "hydra_plugins/findistill_sweeper/__init__.py",
        "hydra_plugins/findistill_search_path/__init__.py",
    } <= names
    assert not [name for name in names if name.startswith("tests/") or name.endswith((".parquet", ".csv"))]


def test_the_installed_package_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import findistill; from findistill.cli import main; "
        "assert 'site' in findistill.__file__, findistill.__file__; main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for arguments in (["--cfg", "job", "experiment=demo"], ["-m", "distill=cls,reg", "distill.min_agreement=9"]):
        done = subprocess.run(
            [sys.executable, "-c", program, str(site), *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip
        if "-m" in arguments:
            assert done.returncode == 2 and "can never be reached" in done.stderr, done.stderr
        else:
            assert done.returncode == 0 and "study: demo" in done.stdout, done.stderr

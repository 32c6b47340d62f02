"""The command line: quick, light, and clear."""

import subprocess
import sys
from pathlib import Path

import pytest

from findistill import __version__, cli
from findistill.core import termination
from findistill.errors import UserError
from findistill.hydra_ext import argv
from tests.conftest import Command

HEAVY = ("torch", "transformers", "pandas", "numpy", "sklearn", "wandb", "pytorch_lightning", "matplotlib", "datasets")


def test_planning_imports_nothing_heavy() -> None:
    program = (
        "import sys, pkgutil, importlib, findistill.methods, findistill.cli, findistill.hydra_ext.sweeper\n"
        "import findistill.methods.status.overview\n"
        "for method in pkgutil.iter_modules(findistill.methods.__path__, 'findistill.methods.'):\n"
        "    if method.ispkg: importlib.import_module(f'{method.name}.steps')\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help(findistill: Command, arguments: list[str]) -> None:
    result = findistill(*arguments)
    assert result.returncode == 0 and "reddit_cls_vs_reg" in result.stdout and "base_" not in result.stdout


def test_version_is_its_own(findistill: Command) -> None:
    result = findistill("--version")
    assert result.returncode == 0 and result.stdout == f"findistill {__version__}\n"


def test_the_composed_configuration_is_shown_without_running(findistill: Command, tmp_path: Path) -> None:
    result = findistill("--cfg", "job", "distill=reg", "--resolve")
    assert result.returncode == 0 and "objective: reg" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["student=./nowhere/at/all", "teacher=/no/such/folder"])
def test_a_model_folder_must_exist(argument: str) -> None:
    with pytest.raises(UserError, match="no such folder"):
        argv.with_model_folders([argument])


def test_a_model_folder_becomes_the_folder_option(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    arguments = argv.with_model_folders([f"student={tmp_path}/mine", "seed=1", "teacher=minilm_l6"])
    assert arguments == ["student=folder", f"student.model={tmp_path}/mine", "student.name=mine", "seed=1", "teacher=minilm_l6"]


def test_a_termination_that_python_dropped_at_the_very_end_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["findistill", "stage=annotate"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(cli, "configure_log", lambda: None)
    monkeypatch.setattr(termination, "install", lambda: None)
    monkeypatch.setattr(termination, "_acknowledged", False)
    monkeypatch.setattr(termination, "CLEANUP_S", 1e9)  # this process must not be ended
    monkeypatch.setattr(cli, "run", lambda: monkeypatch.setattr(termination, "_requested", True))
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 143
    assert capsys.readouterr().err.endswith("findistill: interrupted; run the same command to resume\n")

"""The application's surface: quick, light, and plain-spoken."""

import subprocess
import sys
from pathlib import Path

import pytest

from findistill import app
from findistill.errors import UserError
from tests.conftest import Command

HEAVY = ("torch", "transformers", "pandas", "numpy", "sklearn", "wandb", "pytorch_lightning", "matplotlib", "datasets")


def test_nothing_heavy_is_imported_before_a_stage_runs() -> None:
    program = (
        "import sys, findistill.app, findistill.stages.student, findistill.stages.teacher, findistill.stages.annotate, "
        "findistill.stages.evaluate, findistill.stages.report, findistill.sweep, findistill.settings.rules, "
        "findistill.data.labels, findistill.llm.votes; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help(findistill: Command, arguments: list[str]) -> None:
    done = findistill(*arguments)
    assert done.returncode == 0 and "reddit_cls_vs_reg" in done.stdout and "base_" not in done.stdout


def test_the_composed_configuration_is_shown_without_running(findistill: Command, tmp_path: Path) -> None:
    done = findistill("--cfg", "job", "distill=reg", "--resolve")
    assert done.returncode == 0 and "objective: reg" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["student=./nowhere/at/all", "teacher=/no/such/folder"])
def test_a_model_folder_must_exist(argument: str) -> None:
    with pytest.raises(UserError, match="no such folder"):
        app.with_folders([argument])


def test_a_model_folder_becomes_the_folder_option(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    turned = app.with_folders([f"student={tmp_path}/mine", "seed=1", "teacher=minilm_l6"])
    assert turned == ["student=folder", f"student.model={tmp_path}/mine", "student.name=mine", "seed=1", "teacher=minilm_l6"]

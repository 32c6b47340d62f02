"""The command line that `wandb agent` builds from the documented sweep."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from findistill.hydra_ext.argv import normalize_argv
from tests.conftest import ROOT
from tests.faults.conftest import Application, application, teacher, tiny

assert application and teacher and tiny  # fixtures


def documented() -> dict[str, Any]:
    page = (ROOT / "docs" / "launchers.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(program:.*?)```", page, re.DOTALL)
    sweep: dict[str, Any] = yaml.safe_load(block)
    return sweep


def test_an_agents_command_trains(
    application: Application, teacher: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = documented()
    program, *words, placeholder = sweep["command"]
    assert program == sweep["program"] == "findistill" and placeholder == "${args_no_hyphens}"
    assert list(sweep["parameters"]) == ["trainer.learning_rate", "trainer.batch_size"]
    own = [word for word in teacher if not word.startswith("stage=")]
    outcome = application(*words, *own, "trainer.learning_rate=5.3e-05", "trainer.batch_size=16")
    assert outcome.code == 0, outcome.errors
    [metrics] = tmp_path.glob("runs/wandb_search/teacher-*/metrics.json")
    assert sweep["metric"]["name"] in json.loads(metrics.read_text())


@pytest.mark.parametrize(
    ("argument", "setting"),
    [
        ("--seed=3", "seed=3"),
        ("--trainer.learning_rate=5.3e-05", "trainer.learning_rate=5.3e-05"),
        ("--sweep.report=False", "sweep.report=False"),
    ],
)
def test_settings_may_be_written_as_flags(argument: str, setting: str) -> None:
    assert normalize_argv(["stage=teacher", argument]) == ["stage=teacher", setting]
    assert normalize_argv(["--config-name=config", argument]) == ["--config-name=config", setting]

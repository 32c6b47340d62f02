"""Tab completion: by Hydra's plugin, and in a bash that has it installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from findistill.core.study import note_command
from findistill.hydra_ext import completion
from tests.conftest import ROOT
from tests.test_cli import HEAVY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A typical user's folder: files, a study with a job, a conf folder, another folder for runs."""
    for name in ("news.csv", "my news.csv", ".hidden.csv", "data/prices.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\n")
    job = tmp_path / "runs" / "moon" / "student-0123abcd"
    (job / "model").mkdir(parents=True)
    (job / "status.json").write_text('{"state": "done"}')
    (job.parent / "latest-student").symlink_to(job.name)
    note_command(tmp_path / "elsewhere" / "mars", ["-m", "study=mars"])
    for group, text in {
        "data": "defaults: [base_data, _self_]\nname: mine\n",
        "prompt": "defaults: [base_prompt, _self_]\n",
    }.items():
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINDISTILL_CONF", "")
    return tmp_path


def offered(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COMP_LINE", f"findistill {line}")
    monkeypatch.delenv("COMP_POINT", raising=False)
    completion.print_candidates()
    out, err = capsys.readouterr()
    assert err == ""
    return out.split()


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("stage=report study=", "study=moon"),
        ("runs_dir=elsewhere stage=status study=m", "study=mars"),
        ("data=csv data.path=", "data.path=data/ data.path=elsewhere/ data.path=news.csv data.path=own/ data.path=runs/"),
        ("data.path=data/", "data.path=data/prices.csv"),  # data=csv may follow
        ("data=csv data.path=.h", "data.path=.hidden.csv"),
        ("stage=predict predict.model=runs/moon/s", "predict.model=runs/moon/student-0123abcd"),
        ("evaluate.model=runs/moon/student-0123abcd/m", "evaluate.model=runs/moon/student-0123abcd/model/"),
        ("teacher=runs/moon/l", "teacher=runs/moon/latest-student"),
        ("-m distill=cls,re", "distill=cls,reg"),
        ("report.baselines=[majority,tf", "report.baselines=[majority,tfidf"),
        ("trainer.accelerator=", "trainer.accelerator=auto trainer.accelerator=cpu trainer.accelerator=gpu"),
        ("evaluate.also=[fiqa_n", "evaluate.also=[fiqa_news"),
        ("plan=", "plan=false plan=true"),
        ("seed=", "seed=0"),
        ("hydra/launcher=sub", "hydra/launcher=submitit_local hydra/launcher=submitit_slurm"),
        ("trainer.acc", "trainer.accelerator= trainer.accumulate_grad_batches="),
        ("+trainer.accel", ""),
        ("data=nowhere trainer.accel", "trainer.accelerator="),  # an error in another word
        ("'an open quote study=", "study=moon"),
        ("--config-dir own data=mi", "data=mine"),
        ("--config-dir ow", "own/"),
        ("--config-dir nowhere data=pa", "data=parquet"),
        ("hydra.searchpath=[file://own] prompt=mi", "prompt=mine"),
        ("--mul", "--multirun"),
    ],
)  # fmt: skip
def test_candidates(
    line: str, candidates: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(line, monkeypatch, capsys) == candidates.split()


def test_groups_offer_what_a_user_may_choose(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"distill=cls", "distill=reg"} <= {*(options := offered("distill=", monkeypatch, capsys))}
    assert not any("base_" in option for option in options)
    assert {"evaluate.model=runs/moon/latest-student", "evaluate.model=news.csv"} <= {
        *offered("evaluate.model=", monkeypatch, capsys)
    }
    assert {"stage=", "student=", "study="} <= {*offered("st", monkeypatch, capsys)}


def test_the_cursor_may_stand_inside_the_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "findistill study= stage=report")
    monkeypatch.setenv("COMP_POINT", str(len("findistill study=")))
    completion.print_candidates()
    assert capsys.readouterr().out == "study=moon\n"


def test_fish_wants_a_line_each(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "findistill plan=")
    monkeypatch.setattr("sys.argv", ["findistill", "-sc", "query=fish"])
    completion.print_candidates()
    assert capsys.readouterr().out == "plan=false\nplan=true\n"


BASH = """
eval "$(findistill -sc install=bash)"
type hydra_bash_completion > /dev/null || exit 3
COMP_LINE="findistill stage=report study=" COMP_CWORD=2 COMP_POINT=30
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_in_a_bash_that_has_installed_it(folder: Path) -> None:
    """The line in docs/launchers.md, then Tab: nothing heavy is imported for it."""
    program = folder / "bin" / "findistill"
    program.parent.mkdir()
    loaded = f"open('heavy', 'a').write(str([name for name in {HEAVY!r} if name in sys.modules]))"
    trace = f"import sys; from findistill.cli import main\ntry: main()\nfinally: {loaded}"
    program.write_text(f"#!{sys.executable}\n{trace}\n")
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(["bash", "-c", BASH], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and result.stdout.split() == ["study=moon"], result.stdout + result.stderr
    assert (folder / "heavy").read_text() == "[][]"

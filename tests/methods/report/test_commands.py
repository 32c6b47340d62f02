"""The command in a row of the report reproduces that row."""

import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Command

SWEEP = ("-m", "stage=teacher", "teacher=tfidf", "study=three", "data.labelled_seed=${seed}", "seed=0,1,2", "data.labelled=60",
         "evaluate.resamples=20", "report.resamples=20", "report.baselines=[majority]", "logger=none")  # fmt: skip


@pytest.mark.slow
def test_three_rows_are_made_again_by_their_commands(findistill: Command, tmp_path: Path) -> None:
    result = findistill(*SWEEP)
    assert result.returncode == 0, result.stderr[-2000:]
    study = tmp_path / "runs" / "three"
    before = pd.read_csv(study / "jobs.csv")
    assert before["accuracy"].nunique() > 1 and len(before) == 3
    for row in before.itertuples():
        shutil.rmtree(tmp_path / "runs" / str(row.job))
        program, *words = shlex.split(str(row.command))
        assert program == "findistill"
        result = findistill(*words)
        assert result.returncode == 0, result.stderr[-2000:]
    assert findistill("stage=report", "study=three", "report.resamples=20", "report.baselines=[majority]").returncode == 0
    columns = ["method", "seed", "accuracy", "macro_f1", "job", "command"]
    assert pd.read_csv(study / "jobs.csv")[columns].equals(before[columns])

"""Choosing the settings of a sweep on folds of the labelled rows."""

from pathlib import Path

import pandas as pd

from findistill.config.restore import read_config
from findistill.core.files import read_json
from tests.conftest import Command
from tests.fixtures.models import tiny

assert tiny  # a fixture

OWN = (
    "data=csv", "data.path=mine.csv", "data.label_column=label", "data.test=0.25", "data.validation=0", "logger=none",
    "evaluate.resamples=20", "evaluate.latency=false", "report.resamples=20", "report.baselines=[majority]",
    "trainer.max_epochs=1",
)  # fmt: skip


def write_rows(folder: Path) -> None:
    """Write 40 labelled texts, of which 10 are for testing, and 20 unlabelled ones."""
    words = {"up": "profit rose and sales grew", "down": "profit fell and sales shrank"}
    rows = [f"{words[label]} in case {number},{label}" for number in range(20) for label in words]
    rows += [f"orders were {number} this time," for number in range(20)]
    (folder / "mine.csv").write_text("\n".join(["text,label", *rows]) + "\n")


def test_a_sweep_chooses_on_folds_and_trains_the_best_on_all_labels(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    command = [
        "-m", *OWN, f"student={tiny}", "distill=gold", "student.learning_rate=1e-9,3e-3", "study=moon", "sweep.choose=macro_f1",
        "data.folds=2", "sweep.then=['seed=0,1']",
    ]  # fmt: skip
    planned = findistill(*command, "plan=true")
    assert planned.returncode == 0 and "4 jobs: 0 done, 4 to run" in planned.stdout, planned.stderr
    assert "the best of 2 settings by macro_f1 is then run on all labelled rows" in planned.stdout
    result = findistill(*command)
    assert result.returncode == 0, result.stderr[-3000:]
    folds = [read_json(path) for path in (tmp_path / "runs" / "moon-folds").glob("student-*/metrics.json")]
    assert [(each["data/kept"], each["test/n"]) for each in folds] == [(15, 15)] * 4
    table = pd.read_csv(tmp_path / "runs" / "moon" / "choice.csv")
    best = table["settings"][0]
    assert sorted(table["settings"]) == ["student.learning_rate=0.003", "student.learning_rate=1e-09"]
    students = list((tmp_path / "runs" / "moon").glob("student-*/metrics.json"))
    assert [(read_json(path)["data/kept"], read_json(path)["test/n"]) for path in students] == [(30, 10)] * 2
    configs = [read_config(path) for path in (tmp_path / "runs" / "moon").glob("student-*/config.yaml")]
    assert {each.student.learning_rate for each in configs} == {float(best.partition("=")[2])}
    page = (tmp_path / "runs" / "moon" / "report.html").read_text()
    assert "Chosen on 2 folds of 30 labelled rows by macro F1" in page
    again = findistill(*command)
    assert again.returncode == 0 and again.stderr.count("nothing to do: every job is done") == 1, again.stderr

    refused = findistill(*command, "data.fold=0,1")
    assert refused.returncode == 2 and "omit data.fold" in refused.stderr

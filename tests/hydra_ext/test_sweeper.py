"""Sweeps through a launcher that runs jobs side by side, and what a sweep says it cost."""

from pathlib import Path

import pytest

from findistill.core.files import write_json
from findistill.core.plan import duration
from findistill.hydra_ext.sweeper import costs
from tests.conftest import Command


def test_costs_count_shared_artifacts_once(tmp_path: Path) -> None:
    folders = []
    for number, made in enumerate((100.0, 0.0)):
        folder = tmp_path / str(number)
        shared = {"time/annotate_s": 100.0, "time/data_s": 1.0, "time/artifacts_s": 101.0}
        write_json(folder / "metrics.json", {"time/wall_s": 10 + made, "time/artifacts_made_s": made, **shared})
        folders.append(folder)
    text = costs(folders, 121)
    assert text.startswith("2 jobs in 2 min 1 s: artifacts, made once, 1 min 40 s; the jobs themselves 20.0 s.")
    assert text.endswith("it would have been 3 min 42 s.")  # 20 + 2 x 101


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (99.9, "99.9 s"), (100, "1 min 40 s"), (3600, "60 min 0 s")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.slow
def test_jobs_run_side_by_side_and_share_artifacts(findistill: Command, tmp_path: Path) -> None:
    done = findistill(
        "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "study=moon", "stage=teacher", "seed=0,1", "data.labelled=60",
        "trainer.max_epochs=1", "logger=none", "evaluate.resamples=20", "evaluate.latency=false", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "runs" / "moon").glob("teacher-*/predictions.parquet"))) == 2
    assert len([path for path in (tmp_path / "runs" / ".artifacts").glob("data-*") if path.is_dir()]) == 1
    assert (tmp_path / "runs" / "moon" / "report.html").exists()

"""`plan=true`: which artifacts exist, which are to be created, how many jobs share them, and what they would cost."""

from pathlib import Path
from typing import Any

import pytest

from findistill.core import run_folder
from findistill.core.files import write_json
from findistill.core.plan import PlannedJob, describe
from findistill.methods.stage import stage_of
from tests.fixtures.composing import composed

GPT = ("llm=gpt4o", "llm.price.per_million_in=1", "llm.price.per_million_out=2")


def planned(runs: Path, *overrides: str) -> PlannedJob:
    config: Any = composed(*overrides, f"runs_dir={runs}", "data.labelled=60")
    return PlannedJob(list(overrides), config, stage_of(config))


def table(*jobs: PlannedJob) -> dict[str, list[tuple[str, ...]]]:
    """Step name -> its rows: state, jobs, cost."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for line in describe(jobs).splitlines()[1:-1]:
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        rows.setdefault(cells[0], []).append(tuple(cells[2:]))
    return rows


def test_requests_and_dollars_are_known_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # nothing is sent, so no key is needed
    zero, two = (planned(tmp_path, "stage=fewshot", *GPT, f"shots.k={k}") for k in (0, 2))
    rows = table(zero, two)
    assert rows["data"][0][:2] == ("exists", "2")  # created, to count the texts
    [(state, jobs, cost), (_, _, longer)] = rows["annotate"]
    assert (state, jobs) == ("to create", "1") and cost.startswith("153 requests, ") and "$" in cost
    assert float(longer.rpartition("$")[2]) > float(cost.rpartition("$")[2])  # demonstrations cost tokens
    assert [row[0] for row in rows["fewshot"]] == ["to run", "to run"]
    assert {path.name.partition("-")[0] for path in (tmp_path / ".artifacts").iterdir()} == {"data"}


def test_no_teacher_is_trained_for_an_estimate(tmp_path: Path) -> None:
    rows = table(planned(tmp_path, "stage=augment", "augment=tinyfinbert", *GPT))
    assert rows["folds"] == [("to create", "1", "unknown: none created yet")]
    assert rows["augment"][:1] == [("to create", "1", "unknown: none created yet")]
    assert not (tmp_path / ".artifacts").exists()


def test_a_done_job_needs_nothing_and_tells_what_the_next_may_take(tmp_path: Path) -> None:
    first, other = (planned(tmp_path, "stage=teacher", f"seed={seed}", "study=s") for seed in (0, 1))
    folder = run_folder.folder_of(first.config, first.step, first.overrides)
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"state": "done"})
    write_json(folder / "metrics.json", {"time/wall_s": 12.0})
    assert table(first)["data"] == [("not needed", "1")]
    rows = table(first, other)
    assert rows["data"] == [("to create", "2", "unknown: none created yet")]
    assert rows["teacher"][-2:] == [("done", "1", "took 12.0 s"), ("to run", "1", "about 12.0 s (median of 1 run so far)")]
    assert "2 jobs: 1 done, 1 to run; " in describe([first, other])

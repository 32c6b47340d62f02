"""The sample that people review: some headlines of every company, the same every time, in little memory."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from findistill.errors import UserError
from findistill.methods.sampling import sample
from findistill.methods.sampling.config import Sampling
from findistill.methods.sampling.leaks import overlap, split_by_cluster

COMPANIES = {"Acme Corp": 60, "ACME Corp.": 20, "Borealis Mining": 40, "Zephyr": 1}


def headlines() -> list[tuple[str, list[str]]]:
    """(text, names): 121 with one name, 3 with two, 100 with none."""
    rows = [(f"{name} rises on day {n}", [name]) for name, count in COMPANIES.items() for n in range(count)]
    rows += [(f"Acme Corp beats Borealis Mining, day {n}", ["Acme Corp", "Borealis Mining"]) for n in range(3)]
    return rows + [(f"Oil falls on day {n}", []) for n in range(100)]


def mention(text: str, name: str, votes: int) -> dict[str, Any]:
    start = text.index(name)
    return {"start": start, "end": start + len(name), "label": "company", "votes": votes}


def artifacts(folder: Path, rows: list[tuple[str, list[str]]], **columns: Any) -> SimpleNamespace:
    """The step's two parent artifacts."""
    spans = [[mention(text, name, 8 - at) for at, name in enumerate(names)] for text, names in rows]
    ids = [f"h/{n}" for n in range(len(rows))]
    annotations = pd.DataFrame({"id": ids, "text": [text for text, _ in rows], "spans": spans, "n_valid": 8, "normalized": None})
    for part in ("extraction", "data"):
        (folder / part).mkdir()
    annotations.assign(**columns).to_parquet(folder / "extraction" / "annotations.parquet")
    dates = [f"20{10 + n % 10}-01-01" for n in range(len(rows))]
    splits = ["train" if n % 10 < 7 else "validation" if n % 10 < 9 else "test" for n in range(len(rows))]
    pd.DataFrame({"id": ids, "date": dates, "split": splits}).to_parquet(folder / "data" / "texts.parquet")
    (folder / "out").mkdir()
    step = SimpleNamespace(whole=SimpleNamespace(data=SimpleNamespace(name="t")))
    parents = {part: folder / part for part in ("extraction", "data")}
    return SimpleNamespace(step=step, folder=folder / "out", parents=parents)


def drawn(work: SimpleNamespace, **changes: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    work.config = SimpleNamespace(entities=SimpleNamespace(sample=Sampling(**changes)))
    sample.draw_sample(work)
    return pd.read_parquet(work.folder / "sample.parquet"), json.loads((work.folder / "sample.json").read_text())


def test_every_company_has_its_share_and_one_headline_at_least(tmp_path: Path) -> None:
    frame, facts = drawn(artifacts(tmp_path, headlines()), share=0.1)
    assert facts["clusters"] == 3 and facts["names"] == 4 and facts["without_name"] == 100
    holds = {name: sum(name in own for own in frame["clusters"].map(list)) for name in range(3)}
    assert holds[0] >= 8 and holds[1] >= 4 and holds[2] == 1  # of 83, 43 and 1
    assert facts["drawn_without_name"] == 10 and frame["cluster"].isna().sum() == 10
    assert 21 <= len(frame) <= 23 == 8 + 4 + 1 + 10
    assert set(frame["representative"].dropna()) == {"Acme Corp", "Borealis Mining", "Zephyr"}
    row = frame[frame["cluster"].notna()].iloc[0]
    assert row["text"][row["spans"][0]["start"] : row["spans"][0]["end"]].casefold().startswith("acme")
    assert set(frame["agreement"]) <= {1.0, 7 / 8} and frame["date"].str.fullmatch(r"20\d\d-01-01").all()


def test_the_table_of_clusters_has_the_largest_first(tmp_path: Path) -> None:
    work = artifacts(tmp_path, headlines())
    drawn(work)
    with (work.folder / "clusters.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["representative"] for row in rows] == ["Acme Corp", "Borealis Mining", "Zephyr"]
    assert rows[0]["spellings"] == "Acme Corp | ACME Corp." and [row["headlines"] for row in rows] == ["83", "43", "1"]
    assert rows[2]["drawn"] == "1"


def test_a_draw_is_repeated_and_a_smaller_one_is_a_part_of_a_larger(tmp_path: Path) -> None:
    work = artifacts(tmp_path, headlines())
    frames = [drawn(work, share=share)[0] for share in (0.05, 0.2, 0.2)]
    assert frames[1].equals(frames[2]) and set(frames[0]["id"]) < set(frames[1]["id"])
    assert set(drawn(work, share=0.2, seed=1)[0]["id"]) != set(frames[1]["id"])


def test_the_llms_own_names_come_before_the_surface_forms_and_unanswered_headlines_are_left_out(tmp_path: Path) -> None:
    rows = [("MSFT up", ["MSFT"]), ("Redmond giant up", ["Redmond giant"]), ("broken", []), ("quiet", [])]
    normalized = [["Microsoft"], ["Microsoft"], None, None]
    work = artifacts(tmp_path, rows, normalized=normalized, n_valid=[8, 8, 0, 8])
    frame, facts = drawn(work, share=1)
    assert facts["clusters"] == 1 and facts["without_answer"] == 1 and facts["without_name"] == 1
    assert set(frame["id"]) == {"h/0", "h/1", "h/3"} and set(frame["representative"].dropna()) == {"Microsoft"}


def test_headlines_without_any_name_or_any_answer(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    frame, facts = drawn(artifacts(tmp_path / "a", [(f"Oil {n}", []) for n in range(40)]))
    assert len(frame) == 2 and facts["test_clusters_in_train"] is None
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="no headline has a valid answer"):
        drawn(artifacts(tmp_path / "b", headlines(), n_valid=0))


def test_the_leak_is_reported_and_a_split_by_cluster_has_none(tmp_path: Path) -> None:
    firms = [f"Firm{n // 4:03}{n // 4 * 7919 % 1000:03}" for n in range(400)]
    rows = [(f"{firm} rises, day {n}", [firm]) for n, firm in enumerate(firms)]
    work = artifacts(tmp_path, rows)
    frame, facts = drawn(work, share=1, threshold=100)
    assert facts["test_clusters_in_train"] > 0.5 and facts["splits"]["test"] == 40
    by_cluster, facts = drawn(work, share=1, threshold=100, split="cluster")
    assert facts["test_clusters_in_train"] == 0 == facts["validation_clusters_in_train"]
    assert facts["splits"] == {"train": 280, "validation": 40, "test": 80}
    assert by_cluster["id"].equals(frame["id"])


@given(st.lists(st.lists(st.integers(0, 12), max_size=3, unique=True), max_size=40), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_cluster_is_ever_in_two_splits(clusters: list[list[int]], seed: int) -> None:
    splits = split_by_cluster(clusters, 0.2, 0.1, seed)
    of: dict[int, set[str | None]] = {}
    for own, split in zip(clusters, splits, strict=True):
        for each in own:
            of.setdefault(each, set()).add(split)
    assert all(len(names) == 1 for names in of.values())
    assert splits.count("test") <= round(0.2 * len(clusters)) and not overlap(clusters, splits, "test")


def test_the_largest_group_of_companies_is_for_training() -> None:
    clusters = [[0, 1], [1, 2], [2], [3], [4], [5], [6], [7], [8], [9]]
    for seed in range(20):
        splits = split_by_cluster(clusters, 0.3, 0.1, seed)
        assert splits[:3] == ["train"] * 3 and splits.count("test") == 3 and splits.count("validation") == 1


def test_a_split_by_date_leaves_other_headlines_out(tmp_path: Path) -> None:
    work = artifacts(tmp_path, headlines())
    frame, facts = drawn(work, share=1, split="date", periods=["2010/2013", "2014/2015", "2016/2018"])
    years = frame.groupby("split")["date"].agg(["min", "max"]).map(lambda date: date[:4])
    assert years.T.to_dict("list") == {"train": ["2010", "2013"], "validation": ["2014", "2015"], "test": ["2016", "2018"]}
    assert len(frame) + facts["drawn_outside_periods"] == 224 and facts["drawn_outside_periods"] == 22
    with pytest.raises(UserError, match=r"entities.sample.periods=\[2010\]"):
        drawn(work, split="date", periods=["2010"])


def test_agreement_is_that_of_the_least_certain_candidate(tmp_path: Path) -> None:
    rows = [("Acme up", ["Acme"]), ("Oil up", []), ("Gas up", [])]
    candidates = [[{"votes": 8}, {"votes": 3}], [{"votes": 2}], []]
    frame, _ = drawn(artifacts(tmp_path, rows, candidates=candidates), share=1)
    assert frame["agreement"].tolist() == [5 / 8, 6 / 8, 1.0]


MEASURE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from findistill.methods.sampling import sample
from findistill.methods.sampling.config import Sampling
folder = Path(sys.argv[1])
work = SimpleNamespace(folder=folder / "out", step=None, parents={"extraction": folder / "extraction", "data": folder / "data"},
                       config=SimpleNamespace(entities=SimpleNamespace(sample=Sampling())))
sample.draw_sample(work)
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_900000_headlines_stream_in_400_megabytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"{''.join(random.choice([*'abcdefghijklmnopqrstuvwxyz'], 9)).title()} Inc" for _ in range(5000)]
    which = random.integers(-3000, 5000, 900_000)
    rows = [(f"{names[n]} reports results for the quarter, number {at}", [names[n]]) if n >= 0 else (f"Oil falls, {at}", [])
            for at, n in enumerate(which)]  # fmt: skip
    artifacts(tmp_path, rows)
    del rows
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=600
    )
    peak = float(result.stdout)
    print(f"peak {peak:.0f} MB")
    assert peak < 400

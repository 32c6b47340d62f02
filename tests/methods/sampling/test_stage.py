"""`stage=entities entities.step=sample` through the application, from recorded answers."""

import json
from pathlib import Path

import pandas as pd

from tests.conftest import Command

COMPANIES = ("Acme Widgets", "Borealis", "Cobalt Mining")


def test_a_sample_is_drawn_from_recorded_answers_and_read_back_as_data(findistill: Command, tmp_path: Path) -> None:
    companies = [COMPANIES[n % 4] if n % 4 < 3 else None for n in range(48)]
    texts = [f"{name or 'Oil'} rises on day {n}" for n, name in enumerate(companies)]
    (tmp_path / "news.jsonl").write_text(
        "\n".join(json.dumps({"text": text, "date": f"{2010 + n % 10}-03-01"}) for n, text in enumerate(texts)), encoding="utf-8"
    )
    answers = [{"text": text, "answer": json.dumps([name] if name else [])} for text, name in zip(texts, companies, strict=True)]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    (tmp_path / "names.csv").write_text("\n".join(["name", *COMPANIES]), encoding="utf-8")
    base = [
        "stage=entities",
        "entities.step=sample",
        "logger=none",
        "data=jsonl",
        "data.path=news.jsonl",
        "data.date_column=date",
    ]
    base += ["data.labels=[company]", "shots.k=0", "llm=recorded", "llm.path=answers.jsonl", "entities.sample.share=0.5"]
    result = findistill(*base, "entities.sample.split=date")
    assert result.returncode == 0, result.stderr
    folder = (tmp_path / "runs" / "default" / "latest-entities").resolve()
    sample, metrics = pd.read_parquet(folder / "sample.parquet"), json.loads((folder / "metrics.json").read_text())
    assert metrics["sample/clusters"] == 3 and metrics["sample/drawn"] == len(sample) <= 24
    assert set(sample["split"]) == {"train", "validation", "test"} and "clusters" in result.stderr
    assert (folder / "clusters.csv").read_text(encoding="utf-8").startswith("cluster,representative,")
    again = findistill(*base, "entities.sample.split=date", "entities.sample.threshold=90")
    assert again.returncode == 0 and len([*(tmp_path / "runs" / ".artifacts").glob("extract-*/annotations.parquet")]) == 1
    evaluation = findistill(
        "stage=entities", "entities.model=company_list", "entities.company_list.path=names.csv", "logger=none", "data=parquet",
        f"data.path={folder / 'sample.parquet'}", "data.spans_column=spans", "data.split_column=split", "evaluate.resamples=20",
    )  # fmt: skip
    assert evaluation.returncode == 0, evaluation.stderr
    assert json.loads((folder.parent / "latest-entities" / "metrics.json").read_text())["test/f1"] == 1

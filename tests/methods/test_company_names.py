"""Company names in miniature: LLM answers, a sample, its review by people, a trained model, its predictions and a report."""

import json
import time
from pathlib import Path

import pandas as pd

from findistill.core.files import read_json
from findistill.data.spans import Marked, from_cell
from findistill.inference import spans, tagging
from tests.conftest import Command
from tests.fixtures.machine import slowness
from tests.fixtures.spans import draw

STUDY = ("study=names", "logger=none", "trainer=cpu", "evaluate.resamples=20", "evaluate.latency=false", "report.resamples=20")
ANSWERS = ("llm=recorded", "llm.path=answers.jsonl", "shots.k=0", "annotate.samples=2", "data.labels=[company]")


def test_from_answers_to_a_report(findistill: Command, tiny: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    marked = draw(120)
    marked = Marked([f"{text} ({at})" for at, text in enumerate(marked.texts)], marked.spans)  # none is a duplicate
    names = [[text[span.start : span.end] for span in own] for text, own in zip(marked.texts, marked.spans, strict=True)]
    rows = pd.DataFrame({"id": [f"n{at}" for at in range(len(names))], "text": marked.texts, "date": "2016-05-04"})
    rows.to_csv(tmp_path / "news.csv", index=False)
    with (tmp_path / "answers.jsonl").open("w") as file:  # the second answer misses a name and adds a word that is not one
        for text, own in zip(marked.texts, names, strict=True):
            for answer in (own, [*own[1:], text.split()[-1]]):
                file.write(json.dumps({"text": text, "answer": json.dumps({"result": answer})}) + "\n")

    def run(*arguments: str) -> str:
        result = findistill(*arguments, *STUDY)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout + result.stderr

    news = ("data=csv", "data.path=news.csv", "data.id_column=id", "data.date_column=date")
    latest = tmp_path / "runs" / "names" / "latest-entities"
    run("stage=entities", "entities.step=label", *news, *ANSWERS)
    run("stage=entities", "entities.step=sample", "entities.sample.share=0.6", *news, *ANSWERS)
    sample = (latest / "sample.parquet").resolve()
    drawn = pd.read_parquet(sample)
    assert 40 <= len(drawn) < len(rows)

    review = (
        "stage=review", "data=parquet", f"data.path={sample}", "data.id_column=id", "review.spans=true", "review.size=500",
        *ANSWERS,
    )  # fmt: skip
    run(*review)
    sheet = pd.read_csv(tmp_path / "review.csv", keep_default_na=False)
    assert set(sheet["id"]) == set(drawn["id"])
    right = dict(zip(rows["id"], names, strict=True))
    assert (sheet["company"] != sheet["id"].map(lambda row: " | ".join(dict.fromkeys(right[row])))).any()  # there is work to do
    sheet["company"] = sheet["id"].map(lambda row: " | ".join(dict.fromkeys(right[row])))
    sheet["done"] = "x"
    sheet.to_csv(tmp_path / "review.csv", index=False)
    printed = run(*review)
    reviewed = tmp_path / "runs" / "names" / "latest-review" / "reviewed.parquet"
    assert len(pd.read_parquet(reviewed)) == len(drawn) and "data.reviewed=" in printed

    run(
        "stage=entities", *news, "data.labels=[company]", f"data.reviewed={reviewed}", f"entities.token.encoder={tiny}",
        "entities.token.epochs=3", "entities.token.min_steps=null", "entities.token.max_length=32",
        "entities.token.learning_rate=1e-2",
    )  # fmt: skip
    scores = read_json(latest / "metrics.json")
    assert scores["data/kept"] + scores["test/n"] < len(drawn) and scores["test/f1"] > 0.5
    model = tagging.open_model(latest / "model")
    predicted = list(spans.stream(model, marked.texts))
    table = pd.read_parquet(latest / "predictions.parquet").set_index("text")
    again = dict(zip(marked.texts, predicted, strict=True))
    assert all(from_cell(cell) == again[text] for text, cell in table["predicted"].items())

    report = run("stage=report")
    assert "Exact F1" in report and "not in the report" not in report and (tmp_path / "runs" / "names" / "report.html").exists()
    assert time.monotonic() - started < 60 * slowness()

import csv
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose

from findistill.config.validate import validate
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.annotate import annotate
from findistill.llm.config import Annotate, Prompt, RecordedLLM, Shots
from findistill.llm.estimate import estimate
from findistill.llm.recorded import RecordedEngine
from tests.fixtures.composing import shipped

LABELS = LabelSet(("negative", "neutral", "positive"))
TEXTS = pd.DataFrame({"id": ["a", "b", "c"], "text": ["Profit fell.", "Profit rose!", "A meeting."], "label": None})
ROWS = [
    ("profit fell", "a", "Negative."),
    ("Profit rose", "b", "I think:\nSentiment: positive"),
    ("Profit rose", "b", "bullish?"),
    ("Profit rose", "b", "neutral"),
    ("A meeting.", "c", "NEUTRAL"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    frame = pd.DataFrame(ROWS, columns=["text", "id", "answer"])
    frame.to_csv(tmp_path / "answers.csv", index=False)
    frame.to_json(tmp_path / "answers.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "answers.parquet")
    return tmp_path / "answers.csv"


def run(path: Path, samples: int = 8, max_failed: float = 0.02, steps: tuple[str, ...] = (), **settings: Any) -> pd.DataFrame:
    llm = RecordedLLM(name="recorded", model="recorded", path=str(path), **settings)
    values = {name: value for name, value in vars(llm).items() if name != "_target_"}
    folder = path.parent / "out"
    annotate(
        TEXTS, TEXTS.head(0), LABELS, llm, Prompt(name="direct", instruction="Classify.", steps=list(steps)), Shots(k=4),
        Annotate(samples=samples, max_failed=max_failed), folder, cache=path.parent / "cache", engine=RecordedEngine(**values),
    )  # fmt: skip
    return pd.read_parquet(folder / "annotations.parquet")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("settings", [{}, {"id_column": "id"}], ids=["text", "id"])
def test_rows_of_a_text_are_its_samples(suffix: str, settings: dict[str, Any], file: Path) -> None:
    frame = run(file.with_suffix(suffix), **settings)
    assert list(frame["label"]) == ["negative", "positive", "neutral"]
    assert list(frame["n_samples"]) == [1, 3, 1] and list(frame["n_valid"]) == [1, 2, 1]  # "bullish?" names no label
    assert list(run(file.with_suffix(suffix), samples=2, **settings)["n_samples"]) == [1, 2, 1]
    assert list(run(file.with_suffix(suffix), **settings)["n_samples"]) == [1, 3, 1]


def test_a_label_column_tokens_and_a_selection(file: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=["text", "id", "answer"])
    labels, dates = ["Negative", "positive", "POSITIVE", None, "neutral"], "2024.01.02"  # dates are no numbers of tokens
    one = frame.assign(label=labels, read=["10", "20.0", "30", None, "1"], written=dates)
    two = frame.assign(label="neutral", read=None, written=None)
    pd.concat([one.assign(model="one"), two.assign(model="two")]).to_csv(file, index=False)
    votes = run(file, label_column="label", where={"model": "one"}, tokens_in_column="read", tokens_out_column="written")
    assert list(votes["label"]) == ["negative", "positive", "neutral"] and list(votes["n_valid"]) == [1, 2, 1]
    summary = json.loads((file.parent / "out" / "summary.json").read_text())
    assert (summary["tokens_in"], summary["tokens_out"], summary["cost_usd"]) == (61, 0, None)
    assert set(run(file, label_column="label", where={"model": "two"})["label"]) == {"neutral"}
    both = run(file, label_column="label", where={"model": ["one", "two"]}, samples=2)
    assert set(both["n_valid"]) == {2}  # each model's answer is a sample


def test_a_column_an_annotator_and_no_label_is_no_vote(file: Path) -> None:
    """One column per person, model or labelling function; some abstain on a text."""
    columns = {"ann": ["negative", "", None], "bob": ["Negative", "positive", ""], "lf_rise": [None, "POSITIVE", " "]}
    frame = pd.DataFrame({"text": TEXTS["text"], **columns})
    frame.to_csv(file, index=False)
    votes = run(file, label_columns=["ann", "bob", "lf_rise"])
    assert list(votes["label"].fillna("none")) == ["negative", "positive", "none"]
    assert list(votes["agreement"]) == [2, 2, 0] and list(votes["n_samples"]) == [2, 2, 0]
    assert list(run(file, label_columns=["lf_rise"])["label"].fillna("none")) == ["none", "positive", "none"]
    frame.assign(bob=["buy", "sell", "hold"]).to_csv(file, index=False)
    with pytest.raises(UserError, match=r"(?s)names a label.*an example: 'buy'.*llm.label_columns=\['bob'\]"):
        run(file, label_columns=["bob"])


def test_the_output_of_an_openai_batch(tmp_path: Path) -> None:
    """One line per request, one of them failed; each choice is a sample, and a call's tokens count once."""

    def line(custom_id: str, *contents: str, error: str | None = None) -> str:
        choices = [{"index": at, "message": {"role": "assistant", "content": content}} for at, content in enumerate(contents)]
        body = (
            {"error": {"message": error}}
            if error
            else {"choices": choices, "usage": {"prompt_tokens": 90, "completion_tokens": 6}}
        )
        response = {"status_code": 500 if error else 200, "request_id": "r", "body": body}
        return json.dumps({"id": f"batch_{custom_id}", "custom_id": custom_id, "response": response, "error": None})

    lines = [line("b", "It rose. Positive", "positive", "Neutral"), line("a", "negative"), line("c", error="overloaded")]
    (tmp_path / "batch.jsonl").write_text("\n".join(lines) + "\n")
    with shipped():
        llm = compose("config", ["llm=openai_batch", f"llm.path={tmp_path / 'batch.jsonl'}"]).llm
    names = ("id_column", "answer_column", "tokens_in_column", "tokens_out_column")
    votes = run(tmp_path / "batch.jsonl", max_failed=0.5, **{name: llm[name] for name in names})
    assert list(votes["label"].fillna("none")) == ["negative", "positive", "none"]
    assert list(votes["n_samples"]) == [1, 3, 1] and list(votes["agreement"]) == [1, 2, 0]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["tokens_in"], summary["tokens_out"]) == (180, 12)


def test_what_was_annotated_is_read_again(file: Path) -> None:
    votes = run(file)
    (file.parent / "out" / "samples.jsonl").rename(file.parent / "samples.jsonl")
    again = run(file.parent / "samples.jsonl", id_column="id", answer_column="raw")
    pd.testing.assert_frame_equal(votes, again)


def test_the_label_may_stand_in_the_first_line_and_steps_are_read(file: Path) -> None:
    pd.DataFrame({"text": TEXTS["text"], "answer": "NEGATIVE\n\nIt is neither positive nor neutral."}).to_csv(file, index=False)
    assert set(run(file, answer_line="first")["label"]) == {"negative"}
    pd.DataFrame({"text": TEXTS["text"], "answer": "Opinion: it pays.\nSentiment: positive"}).to_csv(file, index=False)
    assert set(run(file, steps=("Opinion:",))["rationale"]) == {"it pays."}


def test_nothing_is_requested(file: Path) -> None:
    llm = RecordedLLM(name="recorded", model="recorded", path=str(file))
    prompt = Prompt(name="direct", instruction="Classify.")
    plan = estimate(TEXTS, TEXTS.head(0), LABELS, llm, prompt, Shots(k=4), Annotate(), cache=file.parent)
    assert plan.line() == "0 requests, 0 prompt tokens, 0 completion tokens, $0.0000"


def test_texts_without_an_answer_are_failed(file: Path) -> None:
    file.write_text("text,answer\nprofit rose,positive\n")
    with pytest.raises(UserError, match=r"has answers for 1 of 3 texts.*annotate.max_failed=0.667") as refusal:
        run(file)
    assert len(str(refusal.value).splitlines()) == 1
    frame = run(file, max_failed=0.667)
    assert list(frame["label"].fillna("none")) == ["none", "positive", "none"] and list(frame["n_valid"]) == [0, 1, 0]
    samples = [json.loads(line) for line in (file.parent / "out" / "samples.jsonl").read_text().splitlines()]
    assert [each["error"] for each in samples] == ["no recorded answer", None, "no recorded answer"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answer_column": "reply"}, r"has no column 'reply' \(llm.answer_column\); its columns are text, id, answer"),
        ({"where": {"model": "gpt"}}, r"no column 'model' \(llm.where.model\)"),
        ({"where": {"id": "d"}}, "no row of .*answers.csv has these values"),
        ({"answer_column": "id"}, r"none of the answers to 3 texts names a label .*an example: 'a'.\nCheck llm.answer_column"),
        ({"encoding": "utf-99"}, "llm.encoding=utf-99"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str, file: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(file, **settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "llm.path is not set"),
        (["llm.path=none.csv"], "llm.path=none.csv: no such file"),
        (["llm.path=FILE", "annotate.dry_run=true"], "llm=recorded sends none"),
        (["llm.path=FILE", "annotate.calibration=batch"], "needs label probabilities"),
        (["llm.path=FILE", "stage=fewshot"], "generates no text"),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], message: str, file: Path) -> None:
    overrides = [each.replace("FILE", str(file)) for each in overrides]
    with shipped():
        with pytest.raises(UserError, match=message):
            validate(compose("config", ["stage=annotate", "llm=recorded", *overrides]))
        # No prompt is sent, so neither missing demonstrations nor a temperature of 0 is a mistake.
        settings = ["stage=annotate", "llm=recorded", f"llm.path={file}", "data=reddit", "annotate.temperature=0"]
        validate(compose("config", settings))


def test_real_answers(tmp_path: Path) -> None:
    recorded = Path(os.environ.get("FINDISTILL_DATA", "none")) / "llm_answers" / "phrasebank.csv"
    if not recorded.is_file():
        pytest.skip("no recorded answers in FINDISTILL_DATA")
    with recorded.open(encoding="utf-8", newline="") as lines:
        gold = {row["text"]: row["label"] for row in csv.DictReader(lines)}
    texts = pd.DataFrame({"id": [f"{number}" for number in range(len(gold))], "text": list(gold), "label": list(gold.values())})
    values = {"path": str(recorded), "where": {"model": "gpt-4"}, "answer_line": "first"}
    annotate(
        texts, texts.head(0), LABELS, RecordedLLM(name="gpt4", model="gpt-4", **values), Prompt(name="d", instruction="C."),
        Shots(k=0), Annotate(), tmp_path / "out", cache=tmp_path / "cache", engine=RecordedEngine(**values),
    )  # fmt: skip
    votes = pd.read_parquet(tmp_path / "out" / "annotations.parquet")
    assert votes["label"].notna().all() and (votes["label"] == votes["gold"]).mean() == pytest.approx(0.94, abs=0.01)
    assert votes["n_samples"].value_counts().to_dict()[1] == 1118 - 227

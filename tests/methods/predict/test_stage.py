"""The output of `stage=predict` on a user's files: every row and column, and the model's predictions."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from findistill.data import text_files
from findistill.errors import UserError
from findistill.inference import predict as opening
from findistill.inference import predictors
from findistill.inference.predict import predict as predict_texts
from findistill.methods.predict import windows as cutting
from findistill.models.training_profile import TrainingProfile
from findistill.training.config import Trainer
from tests.methods.predict.conftest import NAMES, Predict, metrics

CSV = ("data=csv", "data.path=news.csv")
TEXTS = ["Profit rose", "Shares fall after a warning", 'The board meets, as "planned"', "", "Profit rose", "  "]


@pytest.fixture
def news(tmp_path: Path) -> pd.DataFrame:
    """Six rows, two without text and one with a repeated text; ids have leading zeros, which must be kept."""
    frame = pd.DataFrame({"id": [f"00{n}" for n in range(6)], "text": TEXTS, "note": ["", "a,b", "x\ny", "", "NA", "z"]})
    frame.to_csv(tmp_path / "news.csv", index=False)
    return frame


def answers(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions")


def test_every_row_and_column_is_there_with_the_models_answers(predict: Predict, news: pd.DataFrame, model: Path) -> None:
    frame = answers(folder := predict(*CSV))
    assert [*frame] == ["id", "text", "note", "label", "confidence", "p_positive", "p_negative", "p_neutral"]
    pd.testing.assert_frame_equal(frame[["id", "text", "note"]], news, check_dtype=False)
    expected = predict_texts(model, TEXTS[:3], Trainer(accelerator="cpu"))
    texts = [0, 1, 2, 4]
    assert frame["label"].iloc[texts].tolist() == [*expected.predicted, expected.predicted[0]]
    assert np.allclose(frame[[f"p_{name}" for name in NAMES]].iloc[:3], expected.probabilities, atol=1e-5)
    assert frame["confidence"].iloc[texts].tolist() == frame.filter(like="p_").iloc[texts].max(axis=1).tolist()
    assert frame.iloc[[3, 5], 3:].isna().all(axis=None)
    stats = metrics(folder)
    counts = [stats[f"predict/{name}"] for name in ("rows", "empty", "repeated")]
    assert counts == [6, 2, 1] and stats["predict/rows_per_s"] > 0
    shares = frame["label"].value_counts(normalize=True)
    assert all(stats[f"predict/share/{name}"] == pytest.approx(shares.get(name, 0)) for name in NAMES)
    assert stats["predict/low_confidence"] == pytest.approx((frame["confidence"].dropna() < 0.6).mean())


def test_files_of_a_folder_or_a_glob_come_in_order(predict: Predict, tmp_path: Path) -> None:
    for name, rows in {"b.csv": ["late"], "a.csv": ["early", "next"], "old/0.csv": ["oldest"]}.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_text("\n".join(["text", *rows]) + "\n")
    (tmp_path / "in" / "c.csv.gz").write_bytes(gzip.compress(b"day,text\n1,packed\n"))
    (tmp_path / "in" / "README.md").write_text("not a row\n")
    frame = answers(predict("data=csv", "data.path=in"))
    assert frame["text"].tolist() == ["early", "next", "late", "packed", "oldest"]
    assert frame["day"].isna().tolist() == [True, True, True, False, True]  # a column in only some files
    assert answers(predict("data=csv", "data.path='in/[ab].csv'"))["text"].tolist() == ["early", "next", "late"]


def test_jsonl_keeps_nested_columns_and_values_of_several_types(predict: Predict, tmp_path: Path) -> None:
    rows = [
        {"data": {"text": "Profit rose"}, "tags": ["a"], "size": 1, "odd": 1, "new": {}},
        {"data": {"text": "Shares fell"}, "size": 2.5, "odd": "two", "new": {}},
        {"data": {"text": None}, "tags": None, "size": None, "odd": [3]},
    ]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    where = ("data=jsonl", "data.path=n.jsonl", "data.text_column=data.text")
    frame = answers(predict(*where))
    assert [cell["text"] for cell in frame["data"]] == ["Profit rose", "Shares fell", None]
    assert frame["odd"].tolist() == ["1", "two", "[3]"] and frame["size"].tolist()[:2] == [1.0, 2.5]
    assert frame["label"].notna().tolist() == [True, True, False]
    table = pd.read_csv(predict(*where, "predict.format=csv") / "predictions" / "part-00000.csv", keep_default_na=False)
    assert [json.loads(cell)["text"] for cell in table["data"]] == ["Profit rose", "Shares fell", None]
    assert table["tags"].tolist() == ['["a"]', "", ""]


def test_parquet_keeps_types(predict: Predict, tmp_path: Path) -> None:
    day = pa.array([1, 2, None], pa.date32())
    texts = pa.array(["Profit rose", None, "Shares fell"]).dictionary_encode()
    pq.write_table(
        pa.table({"day": day, "text": texts, "n": pa.array([1, 2, 3], pa.int8())}), tmp_path / "n.parquet", row_group_size=2
    )
    folder = predict("data=parquet", "data.path=n.parquet")
    table = pq.read_table(folder / "predictions")
    assert table["day"].type == pa.date32() and table["n"].type == pa.int8() and table["label"].null_count == 1
    with pytest.raises(UserError, match="the column n has the type int8, not text"):
        predict("data=parquet", "data.path=n.parquet", "data.text_column=n")


FAULTS = {
    "a cell too many": ("csv", "id,text\n1,Profit rose\n2,a,b\n", "news, line 3: 3 cells where the header has 2"),
    "no text column": ("csv", "id,headline\n1,Profit rose\n", "news has no column 'text'"),
    "not utf-8": ("csv", b"text\nProfit rose\nbestv\xe4nd\n", "news, line 3, byte .*: 0xe4 is not utf-8; set data.encoding"),
    "a NUL": ("csv", "text\nProfit\0rose\n", "line 2: a NUL character"),
    "an open quote": ("csv", 'id,text\n1,Profit\n2,"rose\n', "line 3: not valid CSV"),
    "nothing": ("csv", "", "the file is empty"),
    "only a header": ("csv", "id,text\n", "no rows"),
    "a line that is no JSON": ("jsonl", '{"text": "a"}\n{"text": }\n', "news, line 2: not JSON"),
    "a number for a text": ("jsonl", '{"text": "a"}\n{"text": 5}\n', "news, row 2: text=5 is not a text"),
    "half a character": ("jsonl", '{"text": "a"}\n{"text": "b \\ud83d"}\n', "news, row 2: a lone surrogate"),
    "no such key": ("jsonl", '{"headline": "a"}\n{"headline": "b"}\n', "news has no column 'text'"),
    "no parquet": ("parquet", "text\nProfit rose\n", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_input_is_named_before_anything_is_predicted(
    fault: str, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, content, words = FAULTS[fault]
    (tmp_path / "news").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(opening, "open_trained", None)
    with pytest.raises(UserError, match=words):
        predict(f"data={source}", "data.path=news")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data=demo",), "data=demo: stage=predict reads files; choose data=csv, jsonl, parquet"),
        (("data=csv",), "data.path is not set"),
        (("data=csv", "data.path=none.csv"), "data.path=none.csv: no such file"),
        (("data=csv", "data.path='*.tsv'"), "no file matches it"),
        ((*CSV, "predict.model=null"), "stage=predict needs predict.model"),
        ((*CSV, "predict.model=nowhere/model.onnx"), "predict.model=nowhere/model.onnx: no such file"),
        ((*CSV, "predict.out=news.csv"), "predict.out=news.csv is a file"),
        ((*CSV, "predict.ray.min_actors=3", "predict.ray.max_actors=2"), "max_actors=2 is below"),
    ],
)
def test_mistakes(overrides: tuple[str, ...], words: str, predict: Predict, news: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=words.replace("*", r"\*")):
        predict(*overrides)


def test_a_column_of_the_same_name_is_an_error_with_a_remedy_that_works(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("text,label,predicted_confidence\nProfit rose,up,x\n")
    with pytest.raises(UserError, match="already has a column 'label'") as error:
        predict(*CSV)
    frame = answers(predict(*CSV, str(error.value).rpartition(": ")[2]))
    assert frame["label"].tolist() == ["up"] and frame["predicted_predicted_label"].isin(NAMES).all()


def test_a_text_of_a_shard_is_predicted_once(predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "ROWS", 4)
    texts = [f"text {n % 5}" for n in range(40)]
    (tmp_path / "news.csv").write_text("\n".join(["text", *texts]) + "\n")
    requests: list[str] = []
    tokenise = predictors.tokenise
    monkeypatch.setattr(
        predictors, "tokenise", lambda tokenizer, some, *rest: requests.extend(some) or tokenise(tokenizer, some, *rest)
    )
    folder = predict(*CSV, "predict.shard_rows=20")
    assert sorted(text for text in requests if text.startswith("text ")) == sorted([f"text {n}" for n in range(5)] * 2)
    frame = answers(folder)
    assert frame["text"].tolist() == texts and frame.groupby("text")["p_neutral"].nunique().eq(1).all()
    assert len(list((folder / "predictions").glob("part-*.parquet"))) == 2
    assert metrics(folder)["predict/repeated"] == 30


@pytest.mark.parametrize("weights", ["torch", "fp32"])
def test_texts_unlike_the_trainings_are_counted(predict: Predict, model: Path, tmp_path: Path, weights: str) -> None:
    """The same share with every runtime: the special tokens around a text do not count."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = np.array(tokenizer(["profit rose", "profit fell"])["input_ids"]).ravel()
    profile = TrainingProfile.of(ids, tokenizer, ["positive", "negative"])
    assert profile.unseen == 0.5 and profile.labels == {"positive": 0.5, "negative": 0.5} and len(profile.pieces) == 3
    own = shutil.copytree(model, tmp_path / "own" / "model")
    profile.write(own)
    (tmp_path / "news.csv").write_text("text\nprofit rose\nprofit dropped\n")
    stats = metrics(folder := predict(*CSV, f"predict.model={own}", f"predict.weights={weights}"))
    assert stats["predict/unseen_pieces"] == 0.25 and stats["predict/unseen_pieces_expected"] == 0.5
    shares = answers(folder)["label"].value_counts(normalize=True)
    assert stats["predict/label_drift"] == pytest.approx(sum(abs(shares.get(n, 0) - profile.labels.get(n, 0)) for n in NAMES) / 2)


def test_a_file_is_read_as_a_whole_one_is(tmp_path: Path) -> None:
    """Line by line or at once: the same text, whatever the encoding, line endings and compression."""
    text = 'é,1\r\n"a\nb",2\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        for pack in (bytes, gzip.compress):
            (tmp_path / "f").write_bytes(pack(text.encode(encoding)))
            name = "utf-8" if encoding == "utf-8-sig" else encoding
            assert (
                "".join(text_files.lines(tmp_path / "f", name)) == text_files.read_text(tmp_path / "f", name).getvalue() == text
            )

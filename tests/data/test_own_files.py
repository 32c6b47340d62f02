"""Users' files: what is read, and how every fault in a file is reported."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from findistill.data.config import FileData
from findistill.data.dataset import Dataset
from findistill.data.loading import load
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.report import tables
from findistill.schema import register


def configured(path: Path | None, **changes: Any) -> Any:
    kind = path.suffix.lstrip(".") if path else "csv"
    plain = FileData(_target_=f"findistill.data.sources.{kind}.read", name=kind, path=str(path) if path else None)
    return OmegaConf.merge(OmegaConf.structured(plain), changes)


def read(path: Path | None, **changes: Any) -> TextData:
    return load(configured(path, **changes))


def fault(path: Path | None, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        read(path, **changes)
    message = str(error.value)
    assert message.count("\n") <= 1
    return message


ROWS = [{"text": f"Company {n}, quarter report", "label": ["negative", "neutral", "positive"][n % 3]} for n in range(30)]


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"mine.{request.param}"
    if request.param == "csv":
        pd.DataFrame(ROWS).to_csv(path, index=False)
    elif request.param == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    return path


def write(tmp_path: Path, content: str | bytes, name: str = "mine.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_format_gives_the_same(file: Path) -> None:
    data = read(file, label_column="label")
    assert len(data.frame) == 30 and data.card.counts["test"] == {"negative": 2, "neutral": 2, "positive": 2}
    assert set(data.frame["id"]) == {f"mine/{n}" for n in range(30)}
    by_id = data.frame.set_index("id")
    assert all(by_id.loc[f"mine/{n}", ["text", "label"]].tolist() == list(row.values()) for n, row in enumerate(ROWS))
    unlabelled = read(file)
    assert unlabelled.frame["label"].isna().all() and set(unlabelled.frame["split"]) == {"train"}


def test_missing_file_column_and_path(file: Path) -> None:
    assert "text, label" in fault(file, text_column="headline") and "'headline'" in fault(file, text_column="headline")
    assert "data.label_column" in fault(file, label_column="sentiment")
    assert "no such file" in fault(file.with_stem("other"))
    assert "data.path=FILE" in fault(None)


@pytest.mark.parametrize("setting", ["labelled=-1", "limit=0", "test=1.1", "validation=-0.1", "on_leak=perhaps"])
def test_values_that_cannot_be_are_refused_from_python_too(file: Path, setting: str) -> None:
    assert fault(file, **OmegaConf.from_dotlist([setting])).startswith(f"data.{setting}")


def test_unknown_label_names_file_row_value_and_the_known_ones(tmp_path: Path) -> None:
    options = {"label_column": "label", "labels": ["negative", "neutral", "positive"]}
    message = fault(write(tmp_path, "text,label\na,neutral\nb,bullish\n"), **options)
    assert "mine.csv, row 2: label='bullish' is not one of negative, neutral, positive" in message
    assert "data.label_map={bullish: negative}" in message


def test_label_map_translates_text_and_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(10)))
    for mapping in ({0: "negative", 1: "positive"}, {"0": "negative", "1": "positive"}):
        labels = read(path, label_column="label", label_map=mapping).frame.set_index("id")["label"]
        assert labels["mine/0"] == "negative" and labels["mine/1"] == "positive"
    assert "data.label_map=up: must map" in fault(path, label_column="label", label_map="up")
    same = [Dataset(configured(path, label_map=keys)).key for keys in ({0: "negative", "1": "x"}, {"0": "negative", 1: "x"})]
    assert same[0] == same[1]
    other = {"label_column": "label", "label_map": {0: "negative", 1: "up"}}
    assert "data.label_map.1=up" in fault(path, labels=["negative", "positive"], **other)
    assert read(path, **other).labels.names == ("negative", "up")


def test_numbers_with_gaps_in_parquet_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    texts = [f"text {n}" for n in range(8)] + [""]
    pd.DataFrame({"text": texts, "label": [0.0, 1.0] * 4 + [None]}).to_parquet(path)
    data = read(path, label_column="label", label_map={0: "negative", 1: "positive"})
    assert len(data.frame) == 8 and data.card.removed["blank texts"] == 1


def test_labels_may_be_written_in_any_case(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "".join(f"text {n},{['NEUTRAL', ' Positive'][n % 2]}\n" for n in range(10)))
    assert set(read(path, label_column="label").frame["label"]) == {"neutral", "positive"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["sell", "hold", "buy"], ("buy", "hold", "sell")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["2", "1.5", "none"], ("1.5", "2", "none")),
        (["POSITIVE", "Negative", "positive"], ("negative", "positive")),
        (["Hawkish", "hawkish", "Dovish"], ("Dovish", "Hawkish")),
    ],
)
def test_labels_that_are_not_set_are_the_files_own_in_sorted_order(
    tmp_path: Path, names: list[str], expected: tuple[str, ...]
) -> None:
    path = write(tmp_path, "text,label\n" + "".join(f"text {n},{names[n % len(names)]}\n" for n in range(30)))
    data = read(path, label_column="label")
    assert data.labels.names == expected and set(data.frame["label"]) == set(expected)
    assert f"those of the rows: {', '.join(expected)}" in data.card.text()
    assert read(path, label_column="label", labels=list(reversed(expected))).labels.names == expected[::-1]


def test_numbers_of_parquet_are_labels_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    pd.DataFrame({"text": [f"text {n}" for n in range(33)], "label": [float(n % 11) for n in range(33)]}).to_parquet(path)
    assert read(path, label_column="label").labels.names == tuple(map(str, range(11)))


def test_a_column_of_no_labels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "text,id\n" + "".join(f"text {n},id{n}\n" for n in range(200)))
    assert "200 different labels in 200 labelled rows (id0, id1, id10, ...) look like ids or texts" in fault(
        path, label_column="id"
    )


def test_rows_without_a_label_are_unlabelled_training_rows(file: Path) -> None:
    empty = {1, 4, 8, 9, 20}
    table = [{**row, "label": None if n in empty else row["label"]} for n, row in enumerate(ROWS)]
    table += [{"text": table[0]["text"].upper(), "label": None}]  # the same text has a label in another row
    if file.suffix == ".csv":
        pd.DataFrame(table).to_csv(file, index=False)
    elif file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    else:
        pd.DataFrame(table).to_parquet(file)
    data = read(file, label_column="label", labelled=5)
    frame = data.frame.set_index("id")
    without = {f"mine/{n}" for n in empty}
    assert set(frame.index[frame["label"].isna()]) == without and set(frame.loc[sorted(without), "split"]) == {"train"}
    assert data.card.counts["train"]["unlabelled"] == 5 and "unlabelled 5)" in data.card.text()
    assert all("unlabelled" not in data.card.counts[split] for split in ("validation", "test", "pool"))
    assert len(frame) == 30 and sum(data.card.removed.values()) == 1

    ids = {f"mine/{n}" for n in range(30) if n not in empty}
    labelled = [row for row in table if row["label"]]
    alone = read(write(file.parent, pd.DataFrame(labelled).to_csv(index=False), "alone.csv"), label_column="label", labelled=5)
    assert dict(zip(alone.frame["text"], alone.frame["split"], strict=True)) == {
        row["text"]: row["split"] for name, row in frame.iterrows() if name in ids
    }


def test_rows_without_a_label_are_in_train_whatever_the_split_column_says(tmp_path: Path) -> None:
    rows = [
        ("a", "up", "train"),
        ("b", "down", "train"),
        ("x", "down", "train"),
        ("c", "", "test"),
        ("d", "up", "test"),
        ("e", "", "dev"),
        ("C!", "up", "train"),
    ]
    path = write(tmp_path, "text,label,part\n" + "".join(f"{','.join(row)}\n" for row in rows))
    frame = read(path, label_column="label", split_column="part").frame
    assert {row["text"]: row["split"] for _, row in frame.iterrows() if row["text"] in "cdeC!"} == {
        "d": "test", "e": "train", "C!": "train",
    }  # fmt: skip


def test_a_column_without_any_label_is_as_no_column(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "".join(f"text {n},\n" for n in range(10)))
    data = read(path, label_column="label")
    assert data.card.counts == {"train": {"unlabelled": 10}} and data.labels == read(path).labels


def test_quoted_cells_byte_order_marks_and_na(tmp_path: Path) -> None:
    content = '\ufefftext,ticker\r\n"two\nlines, and ""quotes""",NA\r\nNA,b\r\n'
    frame = read(write(tmp_path, content)).frame
    assert frame["text"].tolist() == ['two\nlines, and "quotes"', "NA"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("text,label\n", "no rows"),
        ("text,text\na,b\n", "column name occurs twice"),
        ("text,label\nprofit up, costs down,positive\n", "line 2: 3 cells where the header has 2"),
        ('text,label\na,neutral\n"open,neutral\n', "line 3: not valid CSV"),
        ("text,label\n ,neutral\n,positive\n", "every value of the column 'text' is blank"),
        (b"text,label\na,neutral\ncaf\xe9,positive\n", "line 3, byte 24: 0xe9 is not utf-8; set data.encoding"),
        ("text,label\na,neutral\nb,neutral\nc,neutral\nd,neutral\n", "at least two classes"),
    ],
)
def test_faulty_csv(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in fault(write(tmp_path, content), label_column="label")


def test_other_encodings_are_read_and_unknown_ones_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"text\ncaf\xe9\n")
    assert read(path, encoding="latin-1").frame["text"].tolist() == ["café"]
    assert "data.encoding=klingon: unknown" in fault(path, encoding="klingon")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ('{"text": "a"}\n\n["b"]\n', "line 3: expected an object"),
        ('{"text": "a"}\n{"text": 7}\n', "row 2: text=7 is not a text"),
        (b'{"text": "caf\xe9"}\n', "line 1, byte 13"),
        ("", "no rows"),
    ],
)
def test_faulty_jsonl(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in fault(write(tmp_path, content, "mine.jsonl"))


def test_faulty_parquet(tmp_path: Path) -> None:
    assert "cannot be read as Parquet" in fault(write(tmp_path, "text\na\n", "mine.parquet"))


def test_ids_dates_splits_and_rationales_from_columns(tmp_path: Path) -> None:
    content = "text,label,key,day,part,why\na,neutral,k1,2024-01-02,train,nothing new\nb,positive,k2,,train,\n"
    content += "c,neutral,k3,2024-01-03,dev,\nd,neutral,k4,2024-01-03,Test,\n"
    columns = {"label_column": "label", "id_column": "key", "date_column": "day", "split_column": "part"}
    columns["rationale_column"] = "why"
    frame = read(write(tmp_path, content), **columns).frame
    assert frame["id"].tolist() == ["k1", "k2", "k3", "k4"]
    assert frame["split"].tolist() == ["train", "train", "validation", "test"]
    assert frame["date"].tolist() == ["2024-01-02", None, "2024-01-03", "2024-01-03"]
    assert frame["rationale"][0] == "nothing new" and frame["rationale"][1:].isna().all()
    repeated = write(tmp_path, content.replace("k3", "k1"))
    assert "row 3: the id 'k1' is also in row 1" in fault(repeated, **columns)
    unknown = write(tmp_path, content.replace("dev", "holdout"))
    assert "row 3: part='holdout' is not a split" in fault(unknown, **columns)


def test_the_key_follows_content_and_settings_not_the_place(tmp_path: Path) -> None:
    one = write(tmp_path, "text\na\n")
    (tmp_path / "elsewhere").mkdir()
    same = write(tmp_path / "elsewhere", "text\na\n")
    assert Dataset(configured(one)).key == Dataset(configured(same)).key
    assert Dataset(configured(one)).key != Dataset(configured(one, limit=5)).key
    before = Dataset(configured(one)).key
    write(tmp_path, "text\nb\n")
    assert Dataset(configured(one)).key != before


def test_card_in_words(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "".join(f"text {n},{['neutral', 'positive'][n % 2]}\n" for n in range(10)))
    card = read(path, label_column="label", labels=["negative", "neutral", "positive"]).card.text()
    assert "mine.csv" in card and "test: 2 rows (negative 0, neutral 1, positive 1)" in card
    assert "the labels are those of the rows: neutral, positive" in read(path, label_column="label").card.text()


def test_label_map_from_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "headline,y\n" + "".join(f"text {n},{n % 2}\n" for n in range(10)))
    (tmp_path / "conf" / "data").mkdir(parents=True)
    here = "_target_: findistill.data.sources.csv.read\nname: csv\ndefaults: [base_file, _self_]\n"
    (tmp_path / "conf" / "data" / "csv.yaml").write_text(here)
    register()
    with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
        overrides = [f"data.path={path}", "data.text_column=headline", "data.label_column=y"]
        config = compose("data/csv", overrides=[*overrides, "data.label_map={0: negative, 1: positive}"]).data
    assert load(config).card.counts["test"] == {"negative": 1, "positive": 1}


def test_an_apostrophe_that_keeps_a_spreadsheet_from_running_a_text_is_not_part_of_it(tmp_path: Path) -> None:
    """`to_label.csv` and files from elsewhere have them; the texts must equal those of the file that they came from."""
    texts = ["@cfo: profit is up", "-3% after hours", "=SUM(A1)", "'Tis a good year", "it's flat"]
    frame = pd.DataFrame({"text": texts, "label": ["positive", "negative", "neutral", "positive", "neutral"]})
    (tmp_path / "own.csv").write_text(tables.csv(frame))
    assert "'@cfo" in (tmp_path / "own.csv").read_text()
    assert set(read(tmp_path / "own.csv", label_column="label").frame["text"]) == set(texts)

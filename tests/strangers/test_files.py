"""Files as users have them, read by `data=... data.path=...`, and the messages for those that cannot be read.

A remedy in a message must work as printed: `follow` applies it.
"""

import bz2
import contextlib
import gzip
import io
import json
import re
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from findistill.config.expand import expand
from findistill.config.messages import message
from findistill.data.config import FileData
from findistill.data.dataset import Dataset
from findistill.data.loading import load
from findistill.data.rules import sources
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.methods.datasets import only_tested
from findistill.methods.rows import rows_to_annotate
from findistill.methods.stage import stage_of
from findistill.schema import register
from tests.fixtures.composing import composed, shipped

NAMES = ("negative", "neutral", "positive")
ROWS = [(f"Firm {n}: sales of {n}, costs; up {n}%", NAMES[n % 3]) for n in range(12)]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
LABEL = "data.label_column=label"


def read(kind: str, path: Path, settings: str = "") -> TextData:
    """The data of `data=kind data.path=path` and further settings, written as in a shell."""
    return load(section(kind, path, settings))


def section(kind: str, path: Path, settings: str = "") -> Any:
    data = OmegaConf.structured(FileData(_target_=f"findistill.data.sources.{kind}.read", name=kind, path=str(path)))
    for override in OverridesParser.create().parse_overrides(shlex.split(settings)):
        OmegaConf.update(data, override.key_or_group.removeprefix("data."), override.value())
    return data


def labels_of(data: TextData) -> dict[str, str]:
    return dict(zip(data.frame["text"], data.frame["label"], strict=True))


def fault(kind: str, path: Path, settings: str = "") -> str:
    with pytest.raises(UserError) as error:
        read(kind, path, settings)
    message = str(error.value)
    assert message.count("\n") <= 1 and str(path) in message and len(message) < 1000
    return message.replace(f"{path.parent}/", "")


def follow(message: str, kind: str, path: Path, settings: str = "") -> TextData:
    """The data that is read after adding the last remedy of a message."""
    pattern = r"\"data\..+?\"(?=$|[\s,;])|'data\..+'|\bdata[.=][\w=.\[\],{}:-]*=?[\w=.\[\],{}:-]+"
    remedy = re.findall(pattern, message)[-1].rstrip(".,;")
    if remedy.startswith("data="):
        return read(remedy.removeprefix("data="), path, settings)
    return read(kind, path, f"{settings} {remedy}")


def delimited(delimiter: str, **options: Any) -> bytes:
    return FRAME.to_csv(index=False, sep=delimiter, **options).encode()


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def excel(frame: pd.DataFrame, **options: Any) -> bytes:
    buffer = io.BytesIO()
    frame.to_excel(buffer, index=False, **options)
    return buffer.getvalue()


def parquet(table: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), buffer)
    return buffer.getvalue()


def as_rows(make: Callable[[str, str], Any]) -> list[Any]:
    return [make(text, label) for text, label in ROWS]


def named(make: Callable[[str, str], Any]) -> bytes:
    return jsonl(*as_rows(make))


def label_studio(text: str, label: str) -> dict[str, Any]:
    result = [{"value": {"choices": [label]}, "from_name": "sentiment", "to_name": "text", "type": "choices"}]
    return {"id": 7, "data": {"text": text}, "annotations": [{"id": 1, "result": result, "was_cancelled": False}], "meta": {}}


def argilla(text: str, label: str) -> dict[str, Any]:
    response = [{"value": label, "user_id": "a"}, {"value": label, "user_id": "b"}]
    return {"id": text, "fields": {"text": text}, "suggestions": {}, "responses": {"label": response}, "status": "completed"}


def stocktwits(text: str, label: str) -> dict[str, Any]:
    return {"id": 1, "body": text, "entities": {"sentiment": {"basic": label}}, "symbols": [{"symbol": "NIMB"}]}


# name: (group, file name, content, settings)
READ: dict[str, tuple[str, str, bytes, str]] = {
    "semicolons": ("csv", "a.csv", delimited(";"), LABEL),
    "tabs": ("csv", "a.tsv", delimited("\t"), LABEL),
    "pipes": ("csv", "a.txt", delimited("|"), LABEL),
    "semicolons and decimals with commas": (
        "csv",
        "a.csv",
        b"text;score;label\n" + "".join(f'"{t}";0,{n};{y}\n' for n, (t, y) in enumerate(ROWS)).encode(),
        LABEL,
    ),
    "everything in quotes": ("csv", "a.csv", delimited(";", quoting=1), LABEL),
    "a delimiter that is set": ("csv", "a.csv", delimited("^"), f"{LABEL} \"data.delimiter='^'\""),
    "Excel's hint": ("csv", "a.csv", b"sep=;\r\n" + delimited(";"), LABEL),
    "Excel's UTF-8": ("csv", "a.csv", "\ufeff".encode() + delimited(";").replace(b"\n", b"\r\n"), LABEL),
    "Excel's Unicode text": ("csv", "a.txt", delimited("\t").decode().encode("utf-16"), LABEL),
    "UTF-16 of the other end": (
        "csv",
        "a.txt",
        "\ufeff".encode("utf-16-be") + delimited("\t").decode().encode("utf-16-be"),
        LABEL,
    ),
    "lines of old Macs": ("csv", "a.csv", delimited(",").replace(b"\n", b"\r"), LABEL),
    "gzip": ("csv", "a.csv.gz", gzip.compress(delimited(",")), LABEL),
    "gzip without its ending": ("jsonl", "a.jsonl", gzip.compress(jsonl(*FRAME.to_dict("records"))), LABEL),
    "bzip2": ("csv", "a.csv.bz2", bz2.compress(delimited(",")), LABEL),
    "no header": ("csv", "a.csv", FRAME.to_csv(index=False, header=False).encode(), f"{LABEL} data.columns=[text,label]"),
    "blanks behind the delimiter": (
        "csv",
        "a.csv",
        b"text, label\n" + "".join(f'"{t}", "{y}"\n' for t, y in ROWS).encode(),
        LABEL,
    ),
    "empty columns and rows of a spreadsheet": (
        "csv",
        "a.csv",
        b"text,label,,\n" + "".join(f'"{t}",{y},,\n' for t, y in ROWS).encode() + b",,,\n",
        LABEL,
    ),
    "delimiters at the ends of lines": (
        "csv",
        "a.csv",
        b"text,label\n" + "".join(f'"{t}",{y},\n' for t, y in ROWS).encode(),
        LABEL,
    ),
    "an index of pandas": ("csv", "a.csv", FRAME.to_csv().encode(), LABEL),
    "two indexes of pandas": ("csv", "a.csv", pd.read_csv(io.StringIO(FRAME.to_csv())).to_csv().encode(), LABEL),
    "quotes behind backslashes": (
        "csv",
        "a.csv",
        b"text,label\n" + "".join(f'"{t} \\"so\\"",{y}\n' for t, y in ROWS).encode(),
        LABEL,
    ),
    "bare quotes between tabs": ("csv", "a.tsv", b"text\tlabel\n" + "".join(f'"so {t}\t{y}\n' for t, y in ROWS).encode(), LABEL),
    "cells of lists": ("csv", "a.csv", FRAME.assign(label=[[name] for name in FRAME["label"]]).to_csv().encode(), LABEL),
    "Excel": ("excel", "a.xlsx", excel(FRAME), LABEL),
    "Excel, an empty row above and a column beside": ("excel", "a.xlsx", excel(FRAME.assign(more=1), startrow=2), LABEL),
    "Excel without a header": ("excel", "a.xlsx", excel(FRAME, header=False), f"{LABEL} data.columns=[text,label]"),
    "Excel, a sheet": ("excel", "a.xlsx", excel(FRAME, sheet_name="two words"), f"{LABEL} \"data.sheet='two words'\""),
    "a JSON array": ("jsonl", "a.json", FRAME.to_json(orient="records").encode(), LABEL),
    "an indented JSON array": ("jsonl", "a.json", FRAME.to_json(orient="records", indent=2).encode(), LABEL),
    "pandas by columns": ("jsonl", "a.json", FRAME.to_json().encode(), LABEL),
    "pandas by rows": ("jsonl", "a.json", FRAME.to_json(orient="index").encode(), LABEL),
    "pandas split": ("jsonl", "a.json", FRAME.to_json(orient="split").encode(), LABEL),
    "pandas as a table": ("jsonl", "a.json", FRAME.to_json(orient="table").encode(), LABEL),
    "columns of lists": ("jsonl", "a.json", json.dumps(FRAME.to_dict("list")).encode(), LABEL),
    "Label Studio": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(label_studio)).encode(),
        "data.text_column=data.text data.label_column=annotations.result.value.choices",
    ),
    "Label Studio, the first annotation": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(label_studio)).encode(),
        "data.text_column=data.text data.label_column=annotations.0.result.0.value.choices.0",
    ),
    "Label Studio, small": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(lambda t, y: {"text": t, "sentiment": {"choices": [y]}, "id": 1})).encode(),
        "data.label_column=sentiment",
    ),
    "Argilla": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(argilla)).encode(),
        "data.text_column=fields.text data.label_column=responses.label.value",
    ),
    "Argilla, flat": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(lambda t, y: {"text": t, "label.responses": [y], "label.suggestion": None})).encode(),
        "data.label_column=label.responses",
    ),
    "Argilla's Parquet": (
        "parquet",
        "a.parquet",
        parquet(FRAME.rename(columns={"label": "label.suggestion"})),
        "data.label_column=label.suggestion",
    ),
    "doccano": ("jsonl", "a.jsonl", named(lambda t, y: {"id": 1, "text": t, "label": [y], "Comments": []}), LABEL),
    "doccano, classic": (
        "jsonl",
        "a.json1",
        named(lambda t, y: {"id": 1, "text": t, "annotations": [{"label": NAMES.index(y) + 1, "user": 1}]}),
        'data.label_column=annotations.label "data.label_map={1: negative, 2: neutral, 3: positive}"',
    ),
    "StockTwits": (
        "jsonl",
        "a.json",
        json.dumps({"response": {"status": 200}, "cursor": {}, "messages": as_rows(stocktwits)}).encode(),
        "data.text_column=body data.label_column=entities.sentiment.basic",
    ),
    "Parquet of categories": ("parquet", "a.parquet", parquet(FRAME.astype({"label": "category"})), LABEL),
    "Parquet of large strings and dictionaries": (
        "parquet",
        "a.parquet",
        parquet(
            pa.table(
                {
                    "text": pa.array(FRAME["text"].tolist(), pa.large_string()),
                    "label": pa.array(FRAME["label"].tolist()).dictionary_encode(),
                }
            )
        ),
        LABEL,
    ),
    "Parquet of string views": (
        "parquet",
        "a.parquet",
        parquet(pa.table({c: pa.array(FRAME[c].tolist(), pa.string_view()) for c in FRAME})),
        LABEL,
    ),
    "Parquet of bytes": (
        "parquet",
        "a.parquet",
        parquet(pa.table({c: pa.array([v.encode() for v in FRAME[c]]) for c in FRAME})),
        LABEL,
    ),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read(name: str, tmp_path: Path) -> None:
    kind, file, content, settings = READ[name]
    path = tmp_path / file
    path.write_bytes(content)
    data = read(kind, path, settings)
    texts = {text.removeprefix('"so ').removesuffix(' "so"'): label for text, label in labels_of(data).items()}
    assert texts == dict(ROWS) and data.labels.names == NAMES


def gaps(kind: str, path: Path) -> None:
    """Write a file with numeric labels 1 and 2, in which every third row is unlabelled."""
    frame = pd.DataFrame({"text": FRAME["text"], "label": [None, 1, 2] * 4})
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif kind == "excel":
        frame.to_excel(path.with_suffix(".xlsx"), index=False)
        path.with_suffix(".xlsx").rename(path)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.astype({"label": "Int64"}).to_parquet(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "excel", "parquet", "Int64"])
def test_rows_without_a_label_are_unlabelled_and_whole_numbers_are_whole(kind: str, tmp_path: Path) -> None:
    gaps(kind, tmp_path / "a")
    data = read("parquet" if kind == "Int64" else kind, tmp_path / "a", LABEL)
    assert data.labels.names == ("1", "2") and data.card.counts["train"]["unlabelled"] == 4
    assert set(data.frame.loc[data.frame["label"].isna(), "split"]) == {"train"}
    assert data.frame["label"].value_counts().to_dict() == {"1": 4, "2": 4}


def test_gaps_of_many_spellings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    gaps = [None, "", " ", "NaN", "null", [], [""], float("nan"), "<NA>"]
    path.write_bytes(jsonl(*FRAME.to_dict("records"), *({"text": f"gap {n}", "label": gap} for n, gap in enumerate(gaps))))
    data = read("jsonl", path, LABEL)
    assert data.card.counts["train"]["unlabelled"] == len(gaps) and data.labels.names == NAMES


OWN = {
    "Chinese": ["利好", "利空", "中性"],
    "Arabic": ["إيجابي", "سلبي"],
    "emoji": ["🚀", "📉"],
    "marks": ["M&A", "rate cut / hike", "100%", "$x_{$", "a, b", 'the "best"', "it's"],
    "grades": ["A", "B", "C", "D", "E"],
    "ratings": ["1", "2", "3", "4", "5"],
    "floats": ["-0.5", "0", "0.5", "1.5"],
    "booleans": ["False", "True"],
    "twenty topics": [f"topic {n:02}" for n in range(20)],
    "several words with marks": ["earnings | US", "rates | EU", "up, or flat", "down"],
    "brackets": ["[draft]", "{final}", "(none)"],
}


@pytest.mark.parametrize("name", OWN)
def test_any_label_set(name: str, tmp_path: Path) -> None:
    path, labels = tmp_path / "a.csv", OWN[name]
    pd.DataFrame({"text": [f"text {n}" for n in range(80)], "label": (labels * 40)[:80]}).to_csv(path, index=False)
    data = read("csv", path, LABEL)
    assert set(data.labels.names) == set(labels) == set(data.frame["label"]) and not data.frame["label"].isna().any()
    assert f"those of the rows: {', '.join(data.labels.names)}" in data.card.text()


def test_composed_and_decomposed_letters_and_floats_are_the_same_label(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    labels = ["caf\u00e9", "cafe\u0301", "1.0", "1"] * 5
    pd.DataFrame({"text": [f"text {n}" for n in range(20)], "label": labels}).to_csv(path, index=False)
    assert read("csv", path, LABEL).labels.names == ("1", "caf\u00e9")
    assert read("csv", path, LABEL + " data.labels=['1.0','caf\u00e9']".replace("'", '\\"')).labels.names == ("1.0", "caf\u00e9")


HEAD = b"text,label\n"
GOOD = delimited(",")

# name: (group, file name, content, settings, words of the message)
Fault = tuple[str, str, bytes, str, list[str]]
# ... whose last remedy works as printed
MENDED: dict[str, Fault] = {
    "cp1252": (
        "csv",
        "a.csv",
        GOOD + "the € – “so”,neutral\n".encode("cp1252"),
        LABEL,
        ["line 14, byte", "data.encoding=cp1252"],
    ),
    "latin-1": ("csv", "a.csv", GOOD + b"caf\xe9 \x81,neutral\n", LABEL, ["0xe9 is not utf-8", "data.encoding=latin-1"]),
    "Cyrillic": (
        "csv",
        "a.csv",
        b"text,label\n"
        + "".join(f"Прибыль компании выросла на {n} процентов и акции подорожали,{y}\n" for n, (_, y) in enumerate(ROWS)).encode(
            "cp1251"
        ),
        LABEL,
        ["is not utf-8", "data.encoding=cp1251"],
    ),
    "Chinese": (
        "csv",
        "a.csv",
        b"text,label\n"
        + "".join(f"公司利润上升了{n}个百分点，股票价格上涨,{y}\n" for n, (_, y) in enumerate(ROWS)).encode("gb18030"),
        LABEL,
        ["is not utf-8", "data.encoding=gb"],
    ),
    "UTF-16 without a mark": ("csv", "a.csv", GOOD.decode().encode("utf-16-le"), LABEL, ["data.encoding=utf-16-le"]),
    "no header": (
        "csv",
        "a.csv",
        FRAME.to_csv(index=False, header=False).encode(),
        LABEL,
        ["no column 'text'; its first line is Firm 0", "data.columns=[text,label]"],
    ),
    "no header, with numbers": (
        "csv",
        "a.csv",
        FRAME[["label", "text"]].to_csv(header=False).encode(),
        LABEL,
        ["data.columns=[c1,label,text]"],
    ),
    "no header in Excel": ("excel", "a.xlsx", excel(FRAME, header=False), LABEL, ["data.columns=[text,label]"]),
    "Excel as CSV": ("csv", "a.csv", excel(FRAME), LABEL, ["data=excel"]),
    "Parquet as CSV": ("csv", "a.csv", parquet(FRAME), LABEL, ["data=parquet"]),
    "JSON as CSV": ("csv", "a.csv", FRAME.to_json(orient="records").encode(), LABEL, ["data=jsonl"]),
    "JSONL as CSV": ("csv", "a.csv", jsonl(*FRAME.to_dict("records")), LABEL, ["data=jsonl"]),
    "CSV as JSONL": ("jsonl", "a.jsonl", GOOD, LABEL, ["line 1", "data=csv"]),
    "CSV as Excel": ("excel", "a.xlsx", GOOD, LABEL, ["data=csv"]),
    "Excel as Parquet": ("parquet", "a.parquet", excel(FRAME), LABEL, ["data=excel"]),
    "an unknown label": (
        "csv",
        "a.csv",
        GOOD + "a,利好\n".encode(),
        f"{LABEL} data.labels=[negative,neutral,positive]",
        ["row 13: label='利好' is not one of", "data.label_map="],
    ),
}
FAULTS: dict[str, Fault] = {
    "UTF-8 read as UTF-16": ("csv", "a.csv", GOOD + b"x", f"{LABEL} data.encoding=utf-16", ["a.csv"]),
    "cut inside a character": ("csv", "a.csv", GOOD + "x,利".encode()[:-1], LABEL, ["it is truncated"]),
    "unknown encoding": ("csv", "a.csv", GOOD, "data.encoding=klingon", ["data.encoding=klingon: unknown", "a.csv"]),
    "a header and data.columns": ("csv", "a.csv", GOOD, "data.columns=[text,label]", ["remove data.columns"]),
    "another column": ("csv", "a.csv", GOOD.replace(b"text", b"Text"), LABEL, ["no column 'text' (data.text_column)", "Text"]),
    "another nested column": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(label_studio)).encode(),
        "data.label_column=choices",
        ["data.text, annotations.id, annotations.result.value.choices"],
    ),
    "CSV as Parquet": ("parquet", "a.parquet", GOOD, LABEL, ["cannot be read as Parquet"]),
    "an old Excel file": ("excel", "a.xls", b"\xd0\xcf\x11\xe0" + bytes(600), LABEL, ["(.xls)", "save it as .xlsx"]),
    "an old Excel file as CSV": ("csv", "a.xls", b"\xd0\xcf\x11\xe0" + bytes(600), LABEL, ["(.xls)"]),
    "no such sheet": ("excel", "a.xlsx", excel(FRAME, sheet_name="news"), "data.sheet=old", ["data.sheet=old", "news", "a.xlsx"]),
    "a PDF": ("csv", "a.csv", b"%PDF-1.7 ...", LABEL, ["a PDF"]),
    "rubbish": ("csv", "a.csv", bytes(range(256)) * 9, LABEL, ["a.csv"]),
    "empty": ("csv", "a.csv", b"", LABEL, ["the file is empty"]),
    "blank": ("csv", "a.csv", b"\n \n\t\n", LABEL, ["the file is empty"]),
    "empty JSONL": ("jsonl", "a.jsonl", b"\n\n", LABEL, ["the file is empty"]),
    "empty array": ("jsonl", "a.json", b"[]", LABEL, ["no rows"]),
    "empty Excel": ("excel", "a.xlsx", excel(FRAME[:0], header=False), LABEL, ["no rows"]),
    "header only": ("csv", "a.csv", b"text;label\r\n", LABEL, ["no rows"]),
    "ragged": ("csv", "a.csv", GOOD + b"up, and up,positive\n", LABEL, ["line 14: 3 cells where the header has 2", "quotes"]),
    "a row that is short": ("csv", "a.csv", GOOD + b"up\n", LABEL, ["line 14: 1 cell where the header has 2"]),
    "a label without a name": (
        "csv",
        "a.csv",
        b"text\n" + GOOD.partition(b"\n")[2],
        "",
        ["line 2: 2 cells where the header has 1"],
    ),
    "an open quote": ("csv", "a.csv", GOOD + b'"up,positive\n', LABEL, ["not valid CSV", "check the quotes"]),
    "NUL": ("csv", "a.csv", GOOD + b"u\0p,positive\n", LABEL, ["line 14: a NUL character"]),
    "a cut gzip": ("csv", "a.csv.gz", gzip.compress(GOOD)[:-20], LABEL, ["cannot be decompressed"]),
    "a broken line": ("jsonl", "a.jsonl", jsonl(*FRAME.to_dict("records")) + b'\n{"text": \n', LABEL, ["line 13: not JSON"]),
    "a broken array": ("jsonl", "a.json", b'[{"text": "a"},\n{"text" "b"}]', LABEL, ["not JSON", "line 2, column 9"]),
    "half a character": ("jsonl", "a.jsonl", b'{"text": "a"}\n{"text": "up \\ud83d"}', "", ["row 2: a lone surrogate (\\ud83d)"]),
    "brackets in brackets": ("jsonl", "a.jsonl", b'{"text": "a"}\n' + b"[" * 10**5, "", ["line 2", "too deep"]),
    "brackets in objects": ("jsonl", "a.jsonl", b'{"text": ' * 10**5, "", ["too deep"]),
    "a number of 5,000 digits": ("jsonl", "a.jsonl", b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "", ["cannot be read as JSON"]),
    "numbers for texts": ("jsonl", "a.jsonl", jsonl({"text": 7, "label": "a"}), LABEL, ["row 1: text=7 is not a text"]),
    "an object for a text": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(label_studio)).encode(),
        "data.text_column=data",
        ["row 1: data={'text': 'Firm 0", "it has the fields data.text"],
    ),
    "an object for a label": (
        "jsonl",
        "a.json",
        json.dumps(as_rows(argilla)).encode(),
        "data.text_column=fields.text data.label_column=responses",
        ["row 1: responses=", "responses.label.value"],
    ),
    "lists of two labels": (
        "jsonl",
        "a.jsonl",
        jsonl({"text": "a", "label": ["up", "down"]}),
        LABEL,
        ["row 1", "several labels"],
    ),
    "two labels in a cell": (
        "csv",
        "a.csv",
        HEAD + b"a,up\nb,down\nc,up|down\nd,up\n",
        LABEL,
        ["row 3: label='up|down'", "several labels"],
    ),
    "only several labels": (
        "csv",
        "a.csv",
        HEAD + b"".join(b"text %d,%s\n" % (n, (b"a|b", b"b|c", b"a|c")[n % 3]) for n in range(9)),
        LABEL,
        ["row 1: label='a|b'", "several labels"],
    ),
    "a list written as text": (
        "csv",
        "a.csv",
        HEAD + b"a,up\nb,down\nc,\"['up', 'down']\"\n",
        LABEL,
        ["row 3", "several labels"],
    ),
    "spans": ("jsonl", "a.jsonl", jsonl({"text": "a", "label": [[0, 1, "ORG"]]}), LABEL, ["row 1", "a list of lists"]),
    "scores": (
        "csv",
        "a.csv",
        HEAD + b"".join(b"text %d,%.3f\n" % (n, n / 151) for n in range(150)),
        LABEL,
        ["150 different labels in 150 labelled rows (0, 0.007, 0.013, ...) look like scores", "data.label_column"],
    ),
    "scores that repeat": (
        "csv",
        "a.csv",
        HEAD + b"".join(b"text %d,%.1f\n" % (n, n % 20 / 10) for n in range(90)),
        LABEL,
        ["20 different labels in 90 labelled rows (0, 0.1, 0.2, ...) look like scores"],
    ),
    "ids": (
        "csv",
        "a.csv",
        HEAD + b"".join(b"text %d,x%d\n" % (n, n) for n in range(30)),
        LABEL,
        ["30 different labels in 30 labelled rows (x0, x1, x10, ...) look like ids"],
    ),
}


@pytest.mark.parametrize("name", [*MENDED, *FAULTS])
def test_a_fault_is_one_line_with_its_place_and_the_remedy_works(name: str, tmp_path: Path) -> None:
    kind, file, content, settings, words = {**MENDED, **FAULTS}[name]
    path = tmp_path / file
    path.write_bytes(content)
    message = fault(kind, path, settings)
    for word in words:
        assert word in message
    if name in MENDED:
        assert set(follow(message, kind, path, settings).labels.names) <= set(NAMES)


def test_the_first_sheet_of_several_is_named_on_the_card(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        FRAME.to_excel(book, sheet_name="news", index=False)
        FRAME.iloc[:4].to_excel(book, sheet_name="old", index=False)
    assert "the sheet 'news', the first of 2" in read("excel", tmp_path / "a.xlsx", LABEL).card.text()
    assert read("excel", tmp_path / "a.xlsx", "data.sheet=2").card.counts["train"] == {"unlabelled": 4}


def test_one_text_a_line_may_hold_any_mark(tmp_path: Path) -> None:
    texts = ["up, and up", "a; b | c", '"so" they say', "tab\there", "plain"]
    (tmp_path / "a.csv").write_text("\n".join(["text", *texts]))
    assert read("csv", tmp_path / "a.csv").frame["text"].tolist() == texts


def test_a_folder_of_spark_is_read_as_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "out.parquet"
    folder.mkdir()
    for part in range(3):
        FRAME[part::3].to_parquet(folder / f"part-{part:05}-c000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.crc").write_bytes(b"crc")
    assert labels_of(read("parquet", folder, LABEL)) == dict(ROWS)
    assert "a folder, not a file" in fault("csv", folder)
    (folder / "part-00001-c000.snappy.parquet").write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in fault("parquet", folder)


def test_a_column_in_the_names_of_folders_counts_and_enters_the_key(tmp_path: Path) -> None:
    for label, rows in FRAME.groupby("label"):
        (tmp_path / "a" / f"label={label}").mkdir(parents=True)
        rows[["text"]].to_parquet(tmp_path / "a" / f"label={label}" / "part-0.parquet")
    assert labels_of(read("parquet", tmp_path / "a", LABEL)) == dict(ROWS)
    before = key(tmp_path / "a")
    assert key(tmp_path / "a") == before
    (tmp_path / "a" / "label=neutral").rename(tmp_path / "a" / "label=none")
    assert key(tmp_path / "a") != before


def key(path: Path) -> str:
    return Dataset(section("parquet", path, LABEL)).key


CLASSES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(NAMES))})


def saved(rows: list[tuple[str, str]]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"text": text, "label": NAMES.index(label)} for text, label in rows], features=CLASSES)


def test_folders_of_save_to_disk_with_and_without_splits(tmp_path: Path) -> None:
    saved(ROWS).save_to_disk(tmp_path / "one")
    assert labels_of(read("hub", tmp_path / "one", LABEL)) == dict(ROWS)
    parts = {"train": saved(ROWS[:6]), "validation": saved(ROWS[6:9]), "test": saved(ROWS[9:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "three")
    data = read("hub", tmp_path / "three", LABEL)
    assert labels_of(data) == dict(ROWS) and data.split("test")["text"].tolist() == [text for text, _ in ROWS[9:]]
    assert labels_of(follow(fault("parquet", tmp_path / "one", LABEL), "parquet", tmp_path / "one", LABEL)) == dict(ROWS)
    saved(ROWS).to_parquet(tmp_path / "a.parquet")
    assert read("parquet", tmp_path / "a.parquet", LABEL).labels.names == NAMES
    assert read("parquet", tmp_path / "a.parquet", f"{LABEL} data.label_map={{0:down}}").labels.names == ("1", "2", "down")
    (tmp_path / "three" / "test" / "state.json").write_text("{")
    assert "cannot be read" in fault("hub", tmp_path / "three", LABEL)


def test_near_duplicates_of_test_rows_are_counted_and_dropped_where_asked(tmp_path: Path) -> None:
    rows = [(f"Firm {n} reports a quarter with {n * 7919} units", NAMES[n % 3], "train") for n in range(12)]
    rows += [
        ("Nimbus shares slip 3% after a weak outlook for the year", "negative", "test"),
        ("Aelfeld is flat", "neutral", "test"),
    ]
    rows += [("Nimbus shares slip 4% after a weak outlook for the year", "negative", "train")]
    rows += [("NIMBUS shares slip 3% after the weak outlook for the year!", "neutral", "validation")]
    path = tmp_path / "a.csv"
    pd.DataFrame(rows, columns=["text", "label", "part"]).to_csv(path, index=False)
    complete = read("csv", path, f"{LABEL} data.split_column=part")
    assert "of 90 or more): 1 in train, 1 in validation; data.near" in complete.card.text()
    dropped = read("csv", path, f"{LABEL} data.split_column=part data.near_duplicates=drop")
    assert (
        dropped.card.removed["near-duplicates of test rows"] == 2 and "near-duplicates of test rows (" not in dropped.card.text()
    )
    assert len(dropped.frame) == len(complete.frame) - 2 and len(dropped.split("test")) == 2


def test_posts_that_differ_in_signs_and_emoji_are_different_texts(tmp_path: Path) -> None:
    texts = ["$T01 +3% today", "$T01 -3% today", "$AA01 🚀", "$AA01 📉", "🚀", "📉", "🚀🚀", "+3%", "-3%", "3%"]
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": texts, "label": [NAMES[n % 2] for n in range(len(texts))]}).to_csv(path, index=False)
    data = read("csv", path, LABEL)
    assert len(data.frame) == len(texts) and not any(data.card.removed.values())


@pytest.mark.parametrize("setting", ["delimiter=tab", "sheet=1", "columns=[text]", "encoding=cp1252"])
def test_a_setting_of_another_format_is_refused(setting: str, tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "a.parquet")
    [message] = sources(OmegaConf.create({"data": section("parquet", tmp_path / "a.parquet", f"data.{setting}")}))
    assert message.startswith(f"data.{setting.partition('=')[0]}=") and "data=parquet does not use it" in message


@pytest.mark.parametrize("path", ["nowhere.csv", ".", "/dev/null"])
def test_a_path_that_is_no_file(path: str, tmp_path: Path) -> None:
    problems = [*sources(OmegaConf.create({"data": section("csv", tmp_path / path)}))]
    assert "no such file" in problems[0] if problems else "a folder" in fault("csv", tmp_path / path)


def test_a_model_is_tested_on_all_labelled_rows_of_ones_own_file_unless_it_or_the_command_says_which(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    FRAME.assign(part=["train", "test"] * 6).to_csv(path, index=False)
    whole = load(only_tested(section("csv", path, LABEL)).config)
    assert whole.card.counts == {"test": dict.fromkeys(NAMES, 4)} and "all labelled rows are test rows" in whole.card.text()
    assert len(load(only_tested(section("csv", path, f"{LABEL} data.test=0.5")).config).split("test")) == 6
    own = load(only_tested(section("csv", path, f"{LABEL} data.split_column=part")).config)
    assert own.split("test")["text"].tolist() == [text for text, _ in ROWS[1::2]]
    with shipped():
        register()
        words = [
            "stage=evaluate",
            "evaluate.model=nowhere",
            "data=csv",
            f"data.path='{path}'",
            f"evaluate.also=['csv path={path}']",
        ]
        inputs = stage_of(expand(compose("config", [*words, LABEL]))).inputs
    assert inputs["data"].config.test == inputs["also/0"].config.test == 1


CUT = {
    "csv": ("csv", GOOD + "the €,neutral\n".encode()),
    "quoted": ("csv", delimited(";", quoting=1)),
    "utf-16": ("csv", delimited("\t").decode().encode("utf-16")),
    "gzip": ("csv", gzip.compress(GOOD)),
    "jsonl": ("jsonl", jsonl(*FRAME.to_dict("records"))),
    "array": ("jsonl", json.dumps(as_rows(label_studio)).encode()),
    "excel": ("excel", excel(FRAME)),
    "parquet": ("parquet", parquet(FRAME)),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_changed_or_overwritten_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    kind, content = CUT[name]
    random = np.random.default_rng(0)
    path = tmp_path / "a"
    columns = "data.text_column=data.text" if name == "array" else LABEL
    for number in range(60):
        at = int(random.integers(len(content)))
        damaged = [content[:at], content[:at] + bytes([int(random.integers(256))]) + content[at + 1 :], content[:at] + bytes(20)][
            number % 3
        ]
        path.write_bytes(damaged)
        try:
            read(kind, path, columns)
        except UserError as error:
            assert str(error).count("\n") <= 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["csv", "jsonl", "excel", "parquet"]))
@example(b"text\n\xff\xfe", "csv")
@example(b'{"text": NaN}', "jsonl")
@example(b'{"text": "a", "label": 1e999}', "jsonl")
def test_no_bytes_end_in_a_traceback(content: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(UserError):
        (Path(folder) / "a").write_bytes(content)
        read(kind, Path(folder) / "a", LABEL)


def test_rows_for_testing_only_cannot_be_annotated(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=r"no training or validation rows to annotate.* set data\.test=0\.2"):
        rows_to_annotate(read("csv", tmp_path / "a.csv", f"{LABEL} data.test=1"), None, 0)


@pytest.mark.parametrize(
    "typed", ["data.labels=[利好,利空]", "data.path=文.csv", "data.delimiter=;", "data.label_map={利好: up}"]
)
def test_a_setting_that_hydra_cannot_read_is_printed_with_its_quotes(typed: str) -> None:
    with pytest.raises(OverrideParseException) as error:
        OverridesParser.create().parse_overrides([typed])
    remedy = message(error.value).partition("need quotes: ")[2]
    [word] = shlex.split(remedy)
    value = OverridesParser.create().parse_override(word).value()
    key, _, text = typed.partition("=")
    assert word.startswith(f"{key}=") and value == (["利好", "利空"] if text.startswith("[") else text)


def test_a_damaged_folder_of_save_to_disk_never_ends_the_process(tmp_path: Path) -> None:
    saved(ROWS).save_to_disk(tmp_path / "a")
    random = np.random.default_rng(0)
    [file] = (tmp_path / "a").glob("*.arrow")
    content = file.read_bytes()
    for number in range(40):
        at = int(random.integers(len(content)))
        file.write_bytes(content[:at] if number % 2 else content[:at] + b"\xff" + content[at + 1 :])
        with contextlib.suppress(UserError):
            read("hub", tmp_path / "a", LABEL)


SENTENCES = [
    ("According to Gran , the company has no plans to move production to Turku", "neutral"),
    ('"We are proud" , said the chief of Lännen Tehtaat , a firm in Äänekoski', "positive"),
    ("Operating loss totalled EUR 0.2 mn , compared to a profit of EUR 1 mn", "negative"),
]


@pytest.mark.parametrize(
    ("folder", "encoding"),
    [("FinancialPhraseBank-v1.0", "iso-8859-1"), ("financial_phrasebank", "utf-8"), ("financial_phrasebank", "utf-8-sig")],
)
def test_phrasebank_as_its_authors_have_it(folder: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINDISTILL_DATA", str(tmp_path))
    (tmp_path / folder).mkdir()
    rows = [(f"{SENTENCES[n % 3][0]} in the {n + 1}th quarter .", SENTENCES[n % 3][1]) for n in range(60)]
    for level, size in {"50Agree": 60, "66Agree": 45, "75Agree": 30, "AllAgree": 15}.items():
        lines = "".join(f"{text}@{label}\r\n" for text, label in rows[:size])
        (tmp_path / folder / f"Sentences_{level}.txt").write_bytes(lines.encode(encoding))
    data = load(composed("data=phrasebank").data)
    assert labels_of(data) == dict(rows)
    assert data.frame["agreement"].value_counts().to_dict() == {4: 15, 5: 15, 6: 15, 8: 15}
    file = tmp_path / folder / "Sentences_50Agree.txt"
    columns = "data.columns=[text,label] data.label_column=label data.encoding=latin-1"
    if encoding == "iso-8859-1":  # as a user's file, with the delimiter detected or given
        assert labels_of(read("csv", file, columns)) == labels_of(read("csv", file, f"{columns} data.delimiter=@")) == dict(rows)
        assert "data.columns=[text,label]" in fault("csv", file, "data.encoding=latin-1 data.label_column=label")

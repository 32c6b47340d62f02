"""Mentions in users' files: every list format, exports of annotation tools, CoNLL; and every fault reported in one line."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose
from hypothesis import given, settings
from omegaconf import OmegaConf

from findistill.config.validate import broken_rules
from findistill.data.conll import join_tokens
from findistill.data.dataset import Dataset
from findistill.data.loading import load
from findistill.data.serialization import read_folder, write_folder
from findistill.data.sources.conll import ConllData
from findistill.data.span_cells import Mention, as_spans, read_cell
from findistill.data.spans import Span, to_bio, to_utf16
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.schema import register
from tests.data.test_own_files import configured
from tests.data.test_spans import texts
from tests.fixtures.composing import shipped

TEXT = "🚀 AT&T beats Moody's"
SPANS = [(2, 6), (13, 20)]
UNITS = [(3, 7), (14, 21)]  # an emoji is two UTF-16 code units


def jsonl(tmp_path: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def read(path: Path, **changes: Any) -> TextData:
    return load(configured(path, **{"spans_column": "spans", "test": None, **changes}))


def fault(path: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        read(path, **changes)
    message = str(error.value)
    assert message.count("\n") <= 1
    return message


def others(key: str, cell: Any, n: int = 9) -> list[dict[str, Any]]:
    """Additional rows, so that there is something to split."""
    return [{"text": f"Acme rises, day {row}", key: cell} for row in range(n)]


def spans_of(data: TextData, text: str = TEXT) -> list[tuple[int, int, str]]:
    cell = data.frame.loc[data.frame["text"] == text, "spans"].item()
    return [(span["start"], span["end"], span["label"]) for span in cell]


REGIONS = [
    {"type": "labels", "from_name": "label", "value": {"start": a, "end": b, "text": TEXT[a:b], "labels": ["ORG"]}}
    for a, b in SPANS
]
OLD_REGIONS = [
    {"type": "labels", "value": {"start": a, "end": b, "text": TEXT[c:d], "labels": ["ORG"]}}
    for (a, b), (c, d) in zip(UNITS, SPANS, strict=True)
]
REMARK = {"type": "textarea", "from_name": "why", "value": {"text": ["unsure"]}}
CELLS: dict[str, Any] = {  # the formats of the column `spans`
    "objects": [{"start": a, "end": b, "label": "ORG"} for a, b in SPANS],
    "lists (doccano, spaCy)": [[a, b, "ORG"] for a, b in SPANS],
    "browser offsets (doccano, Argilla)": [[a, b, "ORG"] for a, b in UNITS],
    "json in a cell": json.dumps([[a, b, "ORG"] for a, b in SPANS]),
    "python in a cell": str([{"start": a, "end": b, "label": "ORG"} for a, b in SPANS]),
    "offsets as text": [[str(a), str(b), "ORG"] for a, b in SPANS],
    "doccano with relations": [{"id": 1, "start_offset": a, "end_offset": b, "label": "ORG"} for a, b in SPANS],
    "label studio min": [region["value"] for region in REGIONS],
    "label studio annotations": [{"id": 3, "result": [*REGIONS, REMARK]}],
    "label studio before 1.5": [{"result": OLD_REGIONS}],
    "label studio, two that agree": [{"result": REGIONS}, {"result": REGIONS[::-1]}],
    "argilla responses": [{"user_id": "u", "value": [{"start": a, "end": b, "label": "ORG"} for a, b in UNITS]}],
    "argilla suggestion": {"value": [{"start": a, "end": b, "label": "ORG"} for a, b in SPANS], "score": None, "agent": "x"},
    "argilla to_datasets": [[{"start": a, "end": b, "label": "ORG"} for a, b in UNITS]],
    "columns of datasets": {"start": [2, 13], "end": [6, 20], "label": ["ORG", "ORG"]},
    "hugging face pipeline": [{"entity_group": "ORG", "score": 0.9, "word": "x", "start": a, "end": b} for a, b in SPANS],
}


@pytest.mark.parametrize("form", CELLS)
def test_every_form_of_spans_is_read_in_characters(tmp_path: Path, form: str) -> None:
    path = jsonl(tmp_path, [{"text": TEXT, "spans": CELLS[form]}, *others("spans", [[0, 4, "ORG"]])])
    data = read(path, label_map={"ORG": "company"})
    assert spans_of(data) == [(2, 6, "company"), (13, 20, "company")]
    assert data.labels.names == ("company",) and len(data.split("test")) == 2


@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("annotations", {"annotations": [{"result": REGIONS}], "data": {"text": TEXT}}),
        ("annotations.result", {"annotations": [{"result": REGIONS}], "data": {"text": TEXT}}),
        ("annotations.0", {"annotations": [{"result": REGIONS}, {"result": REGIONS[:1]}], "data": {"text": TEXT}}),
        ("responses.org", {"responses": {"org": [{"value": CELLS["objects"]}]}, "data": {"text": TEXT}}),
        ("responses.org.value", {"responses": {"org": [{"value": CELLS["objects"]}]}, "data": {"text": TEXT}}),
        ("suggestions.org", {"suggestions": {"org": CELLS["argilla suggestion"]}, "data": {"text": TEXT}}),
    ],
)
def test_exports_of_tools_by_the_name_of_a_field(tmp_path: Path, column: str, row: dict[str, Any]) -> None:
    empty = [{"data": {"text": f"nothing {n}"}, column.partition(".")[0]: value} for n, value in enumerate(_empty(column))]
    more = [{**row, "data": {"text": f"{TEXT} {n}"}} for n in range(9)]
    data = read(jsonl(tmp_path, [row, *more, *empty]), text_column="data.text", spans_column=column)
    assert spans_of(data) == [(2, 6, "ORG"), (13, 20, "ORG")]
    assert data.frame.loc[data.frame["text"] == "nothing 0", "spans"].item() == []
    assert data.frame.loc[data.frame["text"] == "nothing 1", "spans"].item() is None


def _empty(column: str) -> list[Any]:
    """Two cells: annotated without a mention, and not annotated."""
    return {
        "annotations": [[{"result": []}], None],
        "responses": [{"org": [{"value": []}]}, {"org": None}],
        "suggestions": [{"org": {"value": []}}, {"org": None}],
    }[column.partition(".")[0]]


def test_a_text_that_label_studio_exports_without_spans_has_none(tmp_path: Path) -> None:
    rows = [
        {"text": "Nothing here", "annotation_id": 7},
        *({**row, "annotation_id": 8} for row in others("spans", [[0, 4, "ORG"]])),
    ]
    assert spans_of(read(jsonl(tmp_path, rows)), "Nothing here") == []


def test_offsets_of_browsers_are_told_from_characters_by_the_words_or_by_the_setting(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"text": TEXT, "spans": CELLS["lists (doccano, spaCy)"]}, *others("spans", [[0, 4, "ORG"]])])
    assert "read as characters" in read(path).card.text()
    assert spans_of(read(path, offsets="utf16")) == [(1, 5, "ORG"), (12, 19, "ORG")]
    path = jsonl(
        tmp_path, [{"text": TEXT, "spans": CELLS["browser offsets (doccano, Argilla)"]}, *others("spans", [[0, 4, "ORG"]])]
    )
    assert "read as UTF-16" in read(path).card.text()
    assert "outside the text" in fault(path, offsets="characters")


FAULTS: dict[str, tuple[Any, list[str]]] = {
    "outside": ([[0, 99, "ORG"]], ["row 1", "0:99", "outside the text of 20 characters"]),
    "negative": ([[-1, 3, "ORG"]], ["row 1", "-1:3"]),
    "empty": ([[3, 3, "ORG"]], ["row 1", "3:3", "empty"]),
    "backwards": ([[6, 2, "ORG"]], ["row 1", "6:2"]),
    "a blank": ([[1, 2, "ORG"]], ["row 1", "whitespace"]),
    "overlapping": ([[2, 6, "ORG"], [4, 13, "ORG"]], ["row 1", "2:6 and 4:13 overlap"]),
    "cut": ('[{"start": 2, "end": 6, "lab', ["row 1", "truncated", "data.spans_column"]),
    "words": ("AT&T", ["row 1", "is not JSON"]),
    "a number": (7, ["row 1", "not a list of spans"]),
    "no label": ([[2, 6, ""]], ["row 1", "no label for the span 2:6"]),
    "no end": ([{"start": 2, "label": "ORG"}], ["row 1", "end=None"]),
    "half an offset": ([[2.5, 6, "ORG"]], ["row 1", "start=2.5"]),
    "not a number": ([[float("nan"), 6, "ORG"]], ["row 1", "start=nan"]),
    "several labels": ([{"start": 2, "end": 6, "labels": ["ORG", "PER"]}], ["row 1", "several labels", "ORG, PER"]),
    "other fields": ([{"from": 2, "to": 6}], ["row 1", "from, to", "start, end and label"]),
    "annotators differ": ([{"result": REGIONS}, {"result": REGIONS[:1]}], ["row 1", "2 annotations that differ", "spans.0"]),
    "another text": ([{"start": 2, "end": 6, "text": "Acme", "label": "ORG"}], ["row 1", "'acme'", "'at&t'", "export both"]),
    "unlike columns": ({"start": [2], "end": [6, 7], "label": ["ORG"]}, ["row 1", "different lengths"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_file_row_and_remedy(tmp_path: Path, case: str) -> None:
    cell, expected = FAULTS[case]
    message = fault(jsonl(tmp_path, [{"text": TEXT, "spans": cell}, *others("spans", [[0, 4, "ORG"]])]))
    assert "mine.jsonl" in message and all(part in message for part in expected), message


def test_types_outside_the_set_are_refused_with_remedies_that_work(tmp_path: Path) -> None:
    rows = [{"text": f"Acme hires Ann Lee, day {n}", "spans": [[0, 4, "org"], [11, 18, "PER"]]} for n in range(9)]
    path = jsonl(tmp_path, rows)
    assert read(path).labels.names == ("PER", "org")
    message = fault(path, labels=["ORG"])
    assert "row 1" in message and "'data.label_map={PER: null}'" in message
    data = read(path, labels=["ORG"], label_map={"PER": None})
    assert spans_of(data, rows[0]["text"]) == [(0, 4, "ORG")]
    assert spans_of(read(path, labels=["company"], label_map="{ORG: company, PER: null}"), rows[0]["text"]) == [(0, 4, "company")]


def test_a_split_column_and_texts_that_nobody_annotated(tmp_path: Path) -> None:
    rows = [
        {"text": f"Acme {n}", "part": ["train", "test"][n % 2], "spans": None if n > 7 else [[0, 4, "ORG"]]} for n in range(10)
    ]
    data = read(jsonl(tmp_path, rows), split_column="part")
    assert data.split("test")["text"].tolist() == ["Acme 1", "Acme 3", "Acme 5", "Acme 7"]
    assert data.card.counts["train"]["unlabelled"] == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_and_the_artifact_on_disk_keep_lists_and_gaps(tmp_path: Path, kind: str) -> None:
    cells = [None if n == 3 else [] if n == 4 else [{"start": 0, "end": 4, "label": "ORG"}] for n in range(12)]
    frame = pd.DataFrame({"text": [f"Acme {n} 🚀" for n in range(12)], "spans": cells})
    path = tmp_path / f"mine.{kind}"
    if kind == "csv":
        frame.assign(spans=[None if cell is None else json.dumps(cell) for cell in cells]).to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    data = read(path)
    write_folder(data, tmp_path)
    again = read_folder(tmp_path)
    for each in (data, again):
        by_text = each.frame.set_index("text")["spans"]
        assert [by_text[text] for text in frame["text"]] == cells
    assert again.labels.names == ("ORG",)


CONLL = "-DOCSTART- -X- O O\n\n# id 7\nAT&T NNP B-ORG\nbeats VB O\nMoody NNP B-ORG\n's POS I-ORG\n\n# NN O\nAnn NN B-PER\n"


def conll(path: Path, **changes: Any) -> Any:
    section = ConllData(_target_="findistill.data.sources.conll.read", name="conll", path=str(path))
    return OmegaConf.merge(OmegaConf.structured(section), {"test": 0.5, "validation": 0, **changes})


@pytest.mark.parametrize(
    "content",
    [
        CONLL,
        CONLL.replace("\n", "\r\n"),
        CONLL.replace("B-", "I-"),
        CONLL.replace("AT&T NNP B", "AT&T NNP U").replace("'s POS I", "'s POS L"),
        CONLL.replace("AT&T NNP B", "AT&T NNP S").replace("'s POS I", "'s POS E"),
        CONLL.replace(" ", "\t"),
    ],
    ids=["IOB2", "windows", "IOB1", "BILOU", "BIOES", "tabs"],
)
def test_conll_in_every_scheme(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.conll").write_text(content, encoding="utf-8")
    data = load(conll(tmp_path / "a.conll"))
    assert spans_of(data, "AT&T beats Moody 's") == [(0, 4, "ORG"), (11, 19, "ORG")]
    assert spans_of(data, "# Ann") == [(2, 5, "PER")]


def test_conll_columns_and_files_of_a_folder(tmp_path: Path) -> None:
    for name, word in (("eng.train", "one"), ("eng.testa", "two"), ("eng.testb", "three")):
        (tmp_path / name).write_text(f"x,O,{word}\ny,B-ORG,Acme\n\n", encoding="utf-8")
    section = conll(tmp_path, delimiter="comma", token_column=2, tag_column=1)
    data = load(section)
    assert {split: data.split(split)["text"].item() for split in ("train", "validation", "test")} == {
        "train": "one Acme", "validation": "two Acme", "test": "three Acme",
    }  # fmt: skip
    assert Dataset(section).key != Dataset(conll(tmp_path, delimiter="comma", token_column=2, tag_column=0)).key


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Acme B-ORG\nrises\n", ["line 2", "'rises'"]),
        ("Acme B-ORG\nrises maybe\n", ["line 2", "'maybe' is not a tag"]),
        ("# only\n\n", ["no sentences"]),
    ],
)
def test_a_faulty_line_of_conll_is_named(tmp_path: Path, content: str, expected: list[str]) -> None:
    (tmp_path / "a.conll").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load(conll(tmp_path / "a.conll"))
    assert all(part in str(error.value) for part in ["a.conll", *expected]) and "\n" not in str(error.value)


@given(texts())
@settings(max_examples=60, deadline=None)
def test_any_text_survives_each_export(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    units = to_utf16(text, spans)
    regions = [{"value": {"start": s.start, "end": s.end, "labels": [s.label], "text": text[s.start : s.end]}} for s in spans]
    old_regions = [{"value": {**r["value"], "start": u.start, "end": u.end}} for r, u in zip(regions, units, strict=True)]
    cells: list[tuple[Any, str | None]] = [
        ([[s.start, s.end, s.label] for s in spans], "characters"),
        ([[s.start, s.end, s.label] for s in units], "utf16"),
        ([{"result": regions}], None),
        ([{"result": old_regions}], None),
        ([{"value": [{"start": s.start, "end": s.end, "label": s.label} for s in units]}], "utf16"),
    ]
    for cell, offsets in cells:
        assert as_spans([(text, read_cell(json.loads(json.dumps(cell))))], offsets)[0] == [spans]


@given(texts())
@settings(max_examples=60, deadline=None)
def test_conll_gives_the_spans_of_its_tokens_back(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    offsets = [(start, end) for start, end in _tokens(text)]
    tokens = [text[start:end] for start, end in offsets]
    joined, again = join_tokens(tokens, to_bio(spans, offsets))
    assert joined == " ".join(tokens)
    assert [joined[s.start : s.end] for s in again] == [" ".join(text[s.start : s.end].split(" ")) for s in spans]


def _tokens(text: str) -> list[tuple[int, int]]:
    """The offsets of the words between blanks."""
    offsets, at = [], 0
    for token in text.split(" "):
        offsets.append((at, at + len(token)))
        at += len(token) + 1
    return offsets


def test_one_span_twice_is_one_mention() -> None:
    assert read_cell([[0, 4, "a"], [0, 4, "a"]]) == [Mention(Span(0, 4, "a"))]
    assert read_cell("") is None and read_cell(float("nan")) is None and read_cell("[]") == []


def test_the_card_says_how_many_names_are_in_training_rows_too(tmp_path: Path) -> None:
    names = [("Acme Widgets", "train"), ("Borealis", "test"), ("Acme Widget", "test"), ("Acme Widgets", "train")]
    rows = [{"text": f"{name} {n}", "part": part, "spans": [[0, len(name), "ORG"]]} for n, (name, part) in enumerate(names)]
    card = read(jsonl(tmp_path, rows), split_column="part", validation=0).card.text()
    assert "names: 1 of the 2 in test rows" in card


def test_settings_that_do_not_go_together_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    register()
    source = ["data=jsonl", f"data.path={jsonl(tmp_path, others('spans', [[0, 4, 'ORG']]))}", "data.spans_column=spans"]
    with shipped():
        for stage in ("teacher", "annotate"):
            [message] = [line for line in broken_rules(compose("config", [f"stage={stage}", *source])) if "mentions" in line]
            assert message.startswith(f"stage={stage} assigns one label per text, but data=jsonl has mentions")
        config = compose("config", ["stage=teacher", *source, "data.label_column=x"])
        assert any("classes or mentions; remove one of the two" in line for line in broken_rules(config))


def test_line_breaks_before_and_inside_a_span_of_label_studio(tmp_path: Path) -> None:
    text = "🚀\nAcme\nWidgets up"
    regions = [{"value": {"start": 3, "end": 15, "text": "Acme\\nWidgets", "labels": ["ORG"]}}]
    path = jsonl(tmp_path, [{"text": text, "spans": [{"result": regions}]}, *others("spans", [[0, 4, "ORG"]])])
    assert spans_of(read(path), text) == [(2, 14, "ORG")]

"""Reviews in files: what spreadsheets and editors do to them, and errors that name the row."""

import csv
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.methods.review.backends import Content
from findistill.methods.review.backends.file import Backend
from findistill.methods.review.decisions import Question, Suggestion
from tests.methods.review.servers import company, settings

LABELS = Question(("negative", "neutral", "positive"), of_spans=False)
COMPANIES = Question(("company",), of_spans=True)
TEXTS = ("=Acme rose, é 🚀", "Bolt; and Bolt fell", "Cargo, “Inc.” was 5%", "0012 rose")
LABELLED = [Suggestion(f"00{n}", text, "neutral", n / 4) for n, text in enumerate(TEXTS)]
MARKED = [Suggestion("000", TEXTS[0], company((1, 5)), 0.5), Suggestion("001", TEXTS[1], company((10, 14)), 0.5)]


def pushed(folder: Path, question: Question, suggestions: list[Suggestion], *names: str) -> list[Path]:
    paths = [folder / name for name in names or ("review.csv",)]
    place = Backend(settings(files=list(map(str, paths))))
    place.read(question, {each.id: each for each in suggestions})
    assert place.push(question, suggestions) == len(suggestions)
    return paths


def pulled(path: Path, question: Question, suggestions: list[Suggestion]) -> Content:
    return Backend(settings(files=[str(path)])).read(question, {each.id: each for each in suggestions})


def edited(path: Path, edit: Callable[[list[dict]], Any], encoding: str = "utf-8-sig", **dialect: Any) -> None:
    """Open and save a CSV as a spreadsheet does."""
    rows = list(csv.DictReader(StringIO(path.read_bytes().decode("utf-8-sig"))))
    changed = edit(rows) or rows
    table = StringIO(newline="")
    writer = csv.DictWriter(table, changed[0], **dialect)
    writer.writeheader()
    writer.writerows(changed)
    path.write_bytes(table.getvalue().encode(encoding, "replace"))


def fill_in(rows: list[dict]) -> None:
    rows[0] |= {"label": "Positive ", "done": "x", "seconds": "3,5", "reviewer": "ann"}
    rows[1] |= {"done": "SKIP"}
    rows[2] |= {"label": "negative"}  # not marked


@pytest.mark.parametrize(
    ("encoding", "dialect"),
    [
        ("utf-8-sig", {}),
        ("utf-8", {"delimiter": ";"}),
        ("cp1252", {"delimiter": ";"}),  # loses the emoji
        ("utf-16", {"delimiter": "\t"}),
        ("utf-8", {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}),
    ],
)
def test_a_csv_that_a_spreadsheet_saved(tmp_path: Path, encoding: str, dialect: dict) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED)
    edited(path, fill_in, encoding, **dialect)
    content = pulled(path, LABELS, LABELLED)
    assert [(each.id, each.text, each.reviewer, each.answer, each.seconds) for each in content.decisions] == [
        ("000", TEXTS[0], "ann", "positive", 3.5),
        ("001", TEXTS[1], "review", None, None),
    ]
    assert content.texts == {each.id: each.text for each in LABELLED}
    assert content.warnings == [
        f"{path}: 1 rows have a changed answer but nothing in the column done: write x there to count them"
    ]


def test_a_spreadsheet_runs_no_text_as_a_formula(tmp_path: Path) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED)
    assert "'=Acme" in path.read_text() and path.read_bytes().startswith(b"\xef\xbb\xbf")
    assert pulled(path, LABELS, LABELLED).texts["000"] == TEXTS[0]


def test_ids_that_a_spreadsheet_made_numbers_of(tmp_path: Path) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED)

    def numbers(rows: list[dict]) -> None:
        for row in rows:
            row |= {"id": str(int(row["id"])), "done": "x"}

    edited(path, numbers)
    place = Backend(settings(files=[str(path)]))
    content = place.read(LABELS, {each.id: each for each in LABELLED})
    assert [each.id for each in content.decisions] == [each.id for each in LABELLED]
    before = path.read_bytes()
    assert place.push(LABELS, LABELLED) == 0 and path.read_bytes() == before  # a file under edit is not rewritten without need


def test_rows_are_added_behind_what_a_person_did(tmp_path: Path) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED[:2])
    edited(path, lambda rows: [{**row, "note": "mine", "done": "x", "label": "positive"} for row in rows[::-1]], delimiter=";")
    place = Backend(settings(files=[str(path)]))
    place.read(LABELS, {each.id: each for each in LABELLED})
    assert place.push(LABELS, LABELLED) == 2
    rows = list(csv.DictReader(StringIO(path.read_bytes().decode("utf-8-sig"))))
    assert [row["id"] for row in rows] == ["001", "000", "002", "003"] and [row["note"] for row in rows] == [
        "mine",
        "mine",
        "",
        "",
    ]
    assert [each.answer for each in pulled(path, LABELS, LABELLED).decisions] == ["positive", "positive"]


def test_a_file_for_each_reviewer(tmp_path: Path) -> None:
    paths = pushed(tmp_path, LABELS, LABELLED, "ann.csv", "bob.jsonl")
    edited(paths[0], lambda rows: [{**row, "done": "x"} for row in rows])
    lines = [json.loads(line) | {"done": "ok", "label": "negative"} for line in paths[1].read_text().splitlines()]
    paths[1].write_text("\n".join(map(json.dumps, lines)))
    content = Backend(settings(files=list(map(str, paths)))).read(LABELS, {each.id: each for each in LABELLED})
    assert {(each.reviewer, each.answer) for each in content.decisions} == {("ann", "neutral"), ("bob", "negative")}


def test_spans_in_words_and_in_offsets(tmp_path: Path) -> None:
    paths = pushed(tmp_path, COMPANIES, MARKED, "ann.csv", "bob.jsonl")
    rows = list(csv.DictReader(StringIO(paths[0].read_bytes().decode("utf-8-sig"))))
    assert [row["company"] for row in rows] == ["Acme", "Bolt #2"]
    first = json.loads(paths[1].read_text().splitlines()[0])
    assert first["spans"] == [{"start": 1, "end": 5, "label": "company", "form": "Acme"}]
    edited(paths[0], lambda rows: [{**rows[0], "done": "x", "company": ""}, {**rows[1], "done": "x", "company": "Bolt"}])
    decisions = pulled(paths[0], COMPANIES, MARKED).decisions
    assert [each.answer for each in decisions] == [(), (Span(0, 4, "company"), Span(10, 14, "company"))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"done": "perhaps"}, "row 2: done='perhaps': write x if the answer is right"),
        ({"done": "x", "label": "up"}, "row 2: 'up' is not one of the labels negative, neutral, positive"),
        ({"done": "x", "label": ""}, "row 2: '' is not one of the labels"),
        ({"done": "x", "seconds": "long"}, "row 2: seconds='long' is not a number of seconds"),
        ({"text": "Dyno is another text"}, "row 2: the id 000 belongs to another text"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, change: dict, message: str) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED)
    edited(path, lambda rows: rows[0].update(change))
    before = path.read_bytes()
    with pytest.raises(UserError, match=message) as error:
        pulled(path, LABELS, LABELLED)
    assert "\n" not in str(error.value) and path.read_bytes() == before


def test_two_answers_of_one_reviewer(tmp_path: Path) -> None:
    [path] = pushed(tmp_path, LABELS, LABELLED)
    edited(path, lambda rows: [{**rows[0], "done": "x"}, {**rows[0], "done": "x", "label": "negative"}])
    with pytest.raises(UserError, match="row 3: another row has a different answer of review for the id 000; keep one"):
        pulled(path, LABELS, LABELLED)
    edited(path, lambda rows: [{**row, "label": "negative"} for row in rows])
    assert len(pulled(path, LABELS, LABELLED).decisions) == 1


@pytest.mark.parametrize(
    ("company", "message"),
    [("Acne", "row 2, column company: 'Acne' does not occur"), ("@3:99", "outside the text"), ("@5:5", "empty")],
)
def test_wrong_mentions_are_named(tmp_path: Path, company: str, message: str) -> None:
    [path] = pushed(tmp_path, COMPANIES, MARKED)
    edited(path, lambda rows: rows[0].update(company=company, done="x"))
    with pytest.raises(UserError, match=message):
        pulled(path, COMPANIES, MARKED)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "000", "text": "=Acme ro', "line 1: not JSON"),
        ("[1]", "line 1: not an object"),
        ('{"id": "000", "text": "=Acme rose, é 🚀"}', "line 1: no column done"),
        ('\n{"id": "000", "text": "=Acme rose, é 🚀", "done": "perhaps"}', "line 2: done='perhaps'"),
        ({"spans": [{"start": 0, "end": 99, "label": "company"}]}, "line 1: span 0:99"),
        ({"spans": [{"start": 2, "end": 2, "label": "company"}]}, "line 1: span 2:2"),
        ({"spans": [{"start": 1, "end": 5, "label": "person"}]}, "its label is not one of company"),
        ({"spans": [{"start": 1, "end": 4, "label": "company", "form": "Acme"}]}, "1:4 is 'Acm', not 'Acme'"),
        ({"spans": [{"start": 1}]}, "is not a list of"),
        ({"spans": 3}, "is not a list of"),
        ({"spans": "Acme"}, "is not a list of"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "review.jsonl"
    row = {"id": "000", "text": TEXTS[0], "done": "x"}
    path.write_text(line if isinstance(line, str) else json.dumps(row | line))
    with pytest.raises(UserError, match=message) as error:
        pulled(path, COMPANIES, MARKED)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04zip", "zip archive"),
        (b"text,done\nAcme,x\n", "no column id"),
        (b'id,text,done\n000,"Acme,x\n', "check the quotes|not valid CSV"),
        (b"id,text,done\n000,Acme,x,x,y\n", "line 2: 5 cells where the header has 3"),
    ],
)
def test_files_that_are_no_reviews(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "review.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        pulled(path, LABELS, LABELLED)
    assert "data." not in str(error.value)  # settings that do not apply to review files


@pytest.mark.parametrize("name", ["review.csv", "review.jsonl"])
@pytest.mark.parametrize("content", [b"", b"id,text,done\n"])
def test_rows_that_were_deleted_are_pushed_again(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content if name.endswith("csv") else b"")
    [path] = pushed(tmp_path, LABELS, LABELLED, name)
    assert len(pulled(path, LABELS, LABELLED).texts) == len(LABELLED)


def test_a_label_that_is_also_a_column(tmp_path: Path) -> None:
    question = Question(("text",), of_spans=True)
    place = Backend(settings(files=[str(tmp_path / "r.csv")]))
    place.read(question, {})
    with pytest.raises(UserError, match=r"the label 'text' is also a column .* review\.files=\[r\.jsonl\]"):
        place.push(question, MARKED)

"""Files that people edit: CSV in a spreadsheet, or JSON lines with offsets. One file for each reviewer.

A row counts once its cell `done` is filled in. Existing rows are kept: a file is only written to add rows.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from findistill.core.files import write_whole
from findistill.data import spans
from findistill.data.delimited import Layout, read_csv
from findistill.data.formulas import quoted, unquoted
from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.methods.review.backends import Content
from findistill.methods.review.backends.mentions import from_words, in_words
from findistill.methods.review.decisions import Answer, Decision, Question, Suggestion

DONE, SKIP = ("x", "yes", "y", "ok", "done", "true", "1"), "skip"
COLUMNS = ("id", "text", "agreement", "suggestion")
ANSWERED = ("done", "reviewer", "seconds")

Row = dict[str, Any]


class Backend:
    advice = "correct each answer, then write x into the column done, or skip if there is none"

    def __init__(self, settings: Any) -> None:
        self._files = [Path(name).expanduser() for name in settings.files]
        self._rows: dict[Path, dict[str, Row]] = {}  # by their place in the file: row 2, line 1
        self.place = ", ".join(map(str, self._files))

    def check(self) -> None:
        for path in self._files:
            if path.exists():
                _read(path)

    def read(self, question: Question, known: dict[str, Suggestion]) -> Content:
        content = Content()
        by_key = {_letters(each.text): each.id for each in known.values()}
        for path in self._files:
            self._rows[path] = _read(path) if path.exists() else {}
            decided: dict[tuple[str, str], Answer | None] = {}
            unmarked = 0
            for place, row in self._rows[path].items():
                where = f"{path}, {place}"
                row["id"] = text_id = _id(row, known, by_key, where)
                text = content.texts.setdefault(text_id, known[text_id].text if text_id in known else str(row["text"]))
                done = str(row.get("done") or "").strip().lower()
                if done and done not in (*DONE, SKIP):
                    raise UserError(f"{where}: done={row['done']!r}: write x if the answer is right, or skip if there is none")
                if not done:
                    unmarked += text_id in known and _is_changed(row, known[text_id], question)
                    continue
                reviewer = str(row.get("reviewer") or "").strip() or path.stem
                answer = None if done == SKIP else question.check(_answer(row, text, question, where), text, where)
                if decided.setdefault((text_id, reviewer), answer) != answer:
                    raise UserError(f"{where}: another row has a different answer of {reviewer} for the id {text_id}; keep one")
                content.decisions.append(Decision(text_id, text, reviewer, answer, _seconds(row.get("seconds"), where)))
            if unmarked:
                content.warnings.append(
                    f"{path}: {unmarked} rows have a changed answer but nothing in the column done: write x there to count them"
                )
        content.decisions[:] = {(each.id, each.reviewer): each for each in content.decisions}.values()
        return content

    def push(self, question: Question, suggestions: Sequence[Suggestion]) -> int:
        pushed: set[str] = set()
        for path in self._files:
            rows = self._rows[path].values()
            pushed_before = {row["id"] for row in rows}
            if new := [each for each in suggestions if each.id not in pushed_before]:
                _write(path, [*rows, *(_row(each, question, path) for each in new)])
                pushed |= {each.id for each in new}
        return len(pushed)


def _letters(text: str) -> str:
    """The part of a text that survives a spreadsheet's changes of encoding, blanks and quotes: ASCII letters and digits."""
    return "".join(character for character in text.lower() if character.isascii() and character.isalnum()) or text.strip()


def _id(row: Mapping[str, Any], known: Mapping[str, Suggestion], by_key: Mapping[str, str], where: str) -> str:
    """The row's id, or that of its text if a spreadsheet changed the id, such as `0012` to `12`."""
    text_id, key = str(row["id"]), _letters(str(row["text"]))
    if text_id not in known:
        return by_key.get(key, text_id)
    if _letters(known[text_id].text) != key:
        raise UserError(
            f"{where}: the id {text_id} belongs to another text ({known[text_id].text[:40]!r}) than the row's "
            f"({str(row['text'])[:40]!r}); use another file for these texts (review.files=[NAME.csv])"
        )
    return text_id


def _answer(row: Mapping[str, Any], text: str, question: Question, where: str) -> Answer:
    if not question.of_spans:
        label = str(row.get("label") or "").strip()
        spelling = {name.casefold(): name for name in question.labels}
        return spelling.get(label.casefold(), label)
    if "spans" in row:  # JSON
        return tuple(_spans(row["spans"], text, where))
    marked = []
    for label in question.labels:
        try:
            marked += from_words(str(row.get(label) or ""), text, label)
        except UserError as error:
            raise UserError(f"{where}, column {label}: {error}") from None
    return tuple(marked)


def _spans(cell: Any, text: str, where: str) -> Iterator[Span]:
    try:
        own = spans.from_cell(cell)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError(f"{where}: spans={str(cell)[:60]} is not a list of {{start, end, label}}") from None
    forms = {(each["start"], each["end"]): each.get("form") for each in cell}
    for span in own:
        form = forms.get((span.start, span.end))
        if form is not None and text[span.start : span.end] != form:
            raise UserError(
                f"{where}: {span.start}:{span.end} is {text[span.start : span.end]!r}, not {form!r}; correct the offsets, or "
                "the form"
            )
        yield span


def _seconds(cell: Any, where: str) -> float | None:
    if cell is None or not str(cell).strip():
        return None
    try:
        seconds = float(str(cell).strip().replace(",", "."))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{where}: seconds={cell!r} is not a number of seconds; correct it, or leave the cell empty")
    return seconds


def _is_changed(row: Mapping[str, Any], suggestion: Suggestion, question: Question) -> bool:
    proposed = _cells(suggestion, question, ".jsonl" if "spans" in row else ".csv")
    return any(str(row.get(name) or "").strip() != str(value or "").strip() for name, value in proposed.items() if name in row)


def _cells(suggestion: Suggestion, question: Question, suffix: str) -> Row:
    """The answer columns, filled in with the suggestion."""
    text, answer = suggestion.text, suggestion.answer
    if not question.of_spans:
        return {"label": answer or ""}
    answer_spans = [] if answer is None or isinstance(answer, str) else list(answer)
    if suffix == ".jsonl":
        return {"spans": [{**each, "form": text[each["start"] : each["end"]]} for each in spans.to_cell(answer_spans)]}
    return {label: in_words([each for each in answer_spans if each.label == label], text) for label in question.labels}


def _row(suggestion: Suggestion, question: Question, path: Path) -> Row:
    cells = _cells(suggestion, question, path.suffix)
    if reserved := {*COLUMNS, *ANSWERED} & {*cells}:
        raise UserError(
            f"{path}: the label {reserved.pop()!r} is also a column of review files; use review.files=[{path.stem}.jsonl]"
        )
    words = "" if "spans" in cells else "; ".join(f"{name}: {value}" for name, value in cells.items() if value)
    own = {"id": suggestion.id, "text": suggestion.text, "agreement": round(suggestion.certainty, 3)}
    suggested = {} if "spans" in cells else {"suggestion": cells.get("label", words)}
    return {**own, **suggested, **cells, **dict.fromkeys(ANSWERED, "")}


def _read(path: Path) -> dict[str, Row]:
    """The rows of an edited file, by their place: `row 2` of a table below its header, `line 1` of JSON lines.

    Raises:
        UserError: it is truncated or damaged, or a column is missing.
    """
    rows = _json_lines(path) if path.suffix == ".jsonl" else _csv(path)
    for place, row in rows.items():
        if absent := [name for name in ("id", "text", "done") if name not in row]:
            raise UserError(f"{path}, {place}: no column {', '.join(absent)}; review.files must be files that stage=review wrote")
    return rows


def _json_lines(path: Path) -> dict[str, Row]:
    rows = {}
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: not JSON ({error}): the line is truncated or a quote is missing; fix it there"
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not an object with id, text and done; restore the line")
        rows[f"line {number}"] = row
    return rows


def _csv(path: Path) -> dict[str, Row]:
    layout = Layout(text_column="text", wanted=["id", "done"])
    lines = path.read_bytes().splitlines()
    if not lines or (len(lines) == 1 and b"done" in lines[0]):  # all rows were deleted: they are pushed again
        return {}
    try:
        rows = read_csv(path, _encoding(path), layout)
    except UserError as error:
        raise UserError(f"{str(error).partition('; ')[0]}; save the file as CSV again, in UTF-8") from error
    return {f"row {number}": {name: unquoted(value) for name, value in row.items()} for number, row in enumerate(rows, 2)}


def _encoding(path: Path) -> str:
    """UTF-8, or cp1252 as spreadsheets on Windows save it; a byte order mark overrides this."""
    try:
        path.read_bytes().decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _write(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    if path.suffix == ".jsonl":
        write_whole(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return
    table = StringIO(newline="")
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: quoted(value) for name, value in row.items()})
    write_whole(path, table.getvalue().encode("utf-8-sig"))  # the byte order mark tells Excel that it is UTF-8

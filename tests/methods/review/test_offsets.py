"""Property tests: spans survive Label Studio, Argilla, and the cells and lines of review files, whatever the text."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.data.spans import Span, from_utf16, to_utf16, without_overlaps
from findistill.errors import UserError
from findistill.methods.review.backends import argilla, file, label_studio, mentions
from findistill.methods.review.decisions import Question, Suggestion

QUESTION = Question(("company", "fund"), of_spans=True)
PIECES = (
    "AT&T", "O'Neil", "S.p.A.", "Acme", "Acme Corp", "acme", "🚀", "👩‍🚀", "é", "e\u0301", "日本", " ", "  ", "|", " | ", "#2",
    "@1:2", "Acme #2", "<b>", '"', "\u200b", "-", "=1", ",", ";", "\n",
)  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join),
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30),
)


@st.composite
def marked(draw: st.DrawFn) -> tuple[str, tuple[Span, ...]]:
    """A text and mentions in it, none blank and none overlapping."""
    text = draw(texts)
    offsets = st.tuples(st.integers(0, len(text) - 1), st.integers(1, 12), st.sampled_from(QUESTION.labels))
    drawn = [Span(start, min(start + size, len(text)), label) for start, size, label in draw(st.lists(offsets, max_size=4))]
    return text, tuple(without_overlaps(span for span in drawn if text[span.start : span.end].strip()))


@given(marked())
def test_label_studio(case: tuple[str, tuple[Span, ...]]) -> None:
    text, spans = case
    result = json.loads(json.dumps(label_studio.as_result(text, spans)))
    assert label_studio.decided(result, text, QUESTION, "here") == spans


@given(marked())
def test_argilla(case: tuple[str, tuple[Span, ...]]) -> None:
    text, spans = case
    record = argilla.as_record(Suggestion("t", text, spans, 0.5, tuple(0.5 for _ in spans)), "q")
    stored, [proposed] = record["fields"]["text"], record["suggestions"]
    assert stored[: len(stored) - argilla.padding(stored)] == text
    units = stored.encode("utf-16-le")
    for value, span in zip(proposed["value"], spans, strict=True):
        # The page shows the right span, and the server, which counts code points, accepts it.
        assert units[2 * value["start"] : 2 * value["end"]].decode("utf-16-le") == text[span.start : span.end]
        assert value["end"] <= len(stored)
    assert argilla.decided(json.loads(json.dumps(proposed["value"])), text, QUESTION, "here") == spans


@given(marked())
def test_utf16_and_back(case: tuple[str, tuple[Span, ...]]) -> None:
    text, spans = case
    assert tuple(from_utf16(text, to_utf16(text, spans))) == spans


@pytest.mark.parametrize("offsets", [(0, 9), (1, 3), (0, 1), (-1, 2)])
def test_offsets_outside_the_text_or_inside_a_character(offsets: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="outside the text or inside a character"):
        from_utf16("🚀ab", [Span(*offsets, "company")])


@given(marked())
def test_the_cells_of_a_spreadsheet(case: tuple[str, tuple[Span, ...]]) -> None:
    text, spans = case
    back: list[Span] = []
    for label in QUESTION.labels:
        own = [span for span in spans if span.label == label]
        back += mentions.from_words(mentions.in_words(own, text), text, label)
    assert tuple(sorted(back)) == spans


@pytest.mark.parametrize(
    ("cell", "offsets"),
    [
        ("Acme", [(0, 4), (15, 19)]),  # every mention
        ("Acme #2", [(15, 19)]),
        (" Bolt|  AT&T ", [(6, 10), (25, 29)]),
        ("acme", [(0, 4), (15, 19)]),
        ("Acme | Acme Corp", [(0, 4), (15, 24)]),
        ("@6:10", [(6, 10)]),
        ("", []),
    ],
)
def test_what_people_write(cell: str, offsets: list[tuple[int, int]]) -> None:
    text = "Acme, Bolt and Acme Corp AT&T"
    assert [(span.start, span.end) for span in mentions.from_words(cell, text, "company")] == offsets
    assert mentions.in_words([Span(0, 4, "c"), Span(15, 19, "c")], text) == "Acme"
    assert mentions.in_words([Span(0, 4, "c")], text) == "Acme #1"


@pytest.mark.parametrize(("cell", "message"), [("Bolts", "'Bolts' does not occur"), ("Acme #3", "'Acme' occurs 2 times")])
def test_forms_that_are_not_there(cell: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        mentions.from_words(cell, "Acme, Bolt and Acme Corp", "company")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@given(case=marked())
def test_files(suffix: str, tmp_path_factory: Any, case: tuple[str, tuple[Span, ...]]) -> None:
    text, spans = case
    if not text.strip() or "\r" in text or "\0" in text:
        return  # not a valid text, or one whose line endings a spreadsheet would change
    path = tmp_path_factory.mktemp("files") / f"r.{suffix}"
    suggestion = Suggestion("t", text, spans, 0.5)
    place = file.Backend(SimpleNamespace(files=[str(path)]))
    place.read(QUESTION, {"t": suggestion})
    assert place.push(QUESTION, [suggestion]) == 1
    [row] = file._read(path).values()
    file._write(path, [{**row, "done": "x"}])
    assert [each.answer for each in place.read(QUESTION, {"t": suggestion}).decisions] == [spans]

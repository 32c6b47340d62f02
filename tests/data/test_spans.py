"""Spans: located, checked, and converted to words and BIO tags and back, whatever surrounds them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.data.spans import (
    Span,
    check,
    from_bio,
    from_cell,
    from_utf16,
    from_words,
    locate,
    to_bio,
    to_cell,
    to_utf16,
    to_words,
    without_overlaps,
    words,
)
from findistill.errors import UserError

# Names and the words between them, with characters that break offsets: non-BMP emoji, joined emoji, combining characters.
NAMES = ("Acme", "AT&T", "Moody's", "J.P. Morgan", "Crédit Agricole", "Re\u0301mi", "T-Mobile", "三菱", "Yahoo!", "3i")
FILLERS = ("rises", "🚀", "👨‍👩‍👧", "e\u0301té", "…", "5%", "(", "and\u00a0then", "—", "'s")


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A text with its mentions."""
    parts = draw(st.lists(st.tuples(st.booleans(), st.integers(0, len(NAMES) - 1)), min_size=1, max_size=12))
    text, spans = "", []
    for is_name, at in parts:
        word = (NAMES if is_name else FILLERS)[at]
        if is_name:
            spans.append(Span(len(text), len(text) + len(word), "company"))
        text += word + " "
    return text.rstrip(), spans


@given(texts())
def test_words_and_tags_give_the_same_spans_back(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    offsets = words(text)
    assert from_words(to_words(spans, offsets), offsets) == spans
    assert from_bio(to_bio(spans, offsets), offsets) == spans
    assert from_cell(to_cell(spans)) == spans
    assert check(text, spans, ["company"], "row 1") == spans


@given(texts())
def test_every_mention_of_a_listed_name_is_located(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    located = locate(text, [text[span.start : span.end] for span in spans], "company")
    assert set(spans) <= set(located.spans)
    assert not located.missing


def test_forms_are_whole_words_longest_first_and_counted() -> None:
    text = "Apple Inc beats Apple; Pineapple falls, APPLE\nINC wins"
    located = locate(text, ["Apple", "apple inc", "Pear"], "company")
    assert [text[span.start : span.end] for span in located.spans] == ["Apple Inc", "Apple", "APPLE\nINC"]
    assert located.repeated == ["apple inc"]
    assert located.missing == ["Pear"]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 9, "company")], "outside the text of 8 characters"),
        ([Span(2, 2, "company")], "empty or outside"),
        ([Span(-1, 2, "company")], "empty or outside"),
        ([Span(4, 5, "company")], "covers only whitespace"),
        ([Span(0, 4, "person")], "not one of company"),
        ([Span(0, 4, "company"), Span(3, 8, "company")], "0:4 and 3:8 overlap"),
    ],
)
def test_a_faulty_span_is_named(spans: list[Span], message: str) -> None:
    with pytest.raises(UserError, match=f"news.csv row 7.*{message}"):
        check("Acme win", spans, ["company"], "news.csv row 7")


def test_of_overlapping_spans_the_longest_stays() -> None:
    spans = [Span(0, 5, "company"), Span(0, 9, "company"), Span(9, 12, "company"), Span(8, 11, "company")]
    assert without_overlaps(spans) == [Span(0, 9, "company"), Span(9, 12, "company")]


def test_tags_without_a_beginning_begin_a_mention() -> None:
    offsets = [(0, 2), (3, 5), (0, 0), (6, 8), (9, 11)]
    assert from_bio(["I-a", "I-a", "O", "I-b", "B-b"], offsets) == [Span(0, 5, "a"), Span(6, 8, "b"), Span(9, 11, "b")]


@given(texts())
def test_utf16_offsets_are_those_of_browsers(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    units = to_utf16(text, spans)
    encoded = text.encode("utf-16-le")
    assert [encoded[2 * u.start : 2 * u.end].decode("utf-16-le") for u in units] == [text[s.start : s.end] for s in spans]
    assert from_utf16(text, units) == spans


def test_an_utf16_offset_inside_a_character_is_refused() -> None:
    with pytest.raises(UserError, match="inside a character"):
        from_utf16("🚀 Acme", [Span(1, 3, "company")])

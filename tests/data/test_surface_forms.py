"""Names that a model spells in another Unicode or typographic form than the text."""

import pytest

from findistill.data.surface_forms import folded, occurrences


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("Nestle\u0301 falls", "Nestlé", "Nestle\u0301"),  # two characters in the text, one in the form
        ("Nestlé falls", "Nestle\u0301", "Nestlé"),
        ("Macy’s falls", "Macy's", "Macy’s"),
        ("Coca–Cola falls", "Coca-Cola", "Coca–Cola"),
        ("Bank\u00a0of  Oslo falls", "Bank of Oslo", "Bank\u00a0of  Oslo"),
        ("Ac\u00adme falls", "Acme", "Ac\u00adme"),  # a soft hyphen
        ("🚀🚀 ACME falls", "Acme", "ACME"),
        ("AT&T falls", "AT&T", "AT&T"),
        ("$GM falls", "GM", "GM"),
        ("ソニーが上昇", "ソニー", "ソニー"),  # no spaces between words
        ("Sonyが上昇", "Sony", "Sony"),
    ],
)
def test_a_form_in_a_text(text: str, form: str, expected: str) -> None:
    assert [text[start:end] for start, end in occurrences(text, form)] == [expected]


@pytest.mark.parametrize(
    ("text", "form"), [("Nestle\u0301 falls", "Nestle"), ("Applebee's", "Apple"), ("Acme", " "), ("", "Acme")]
)
def test_a_form_that_is_not_there(text: str, form: str) -> None:
    assert occurrences(text, form) == []


def test_case_counts_where_it_can() -> None:
    assert occurrences("GAP at the gap", "GAP") == [(0, 3)]
    assert occurrences("a gap", "GAP") == [(2, 5)]


@pytest.mark.parametrize("text", ["plain", "e\u0301 x", "ﬁne ½ ™", "👩\u200d💻\ufe0f ok", "\u0301 x"])
def test_every_character_has_its_place(text: str) -> None:
    characters, offsets = folded(text)
    assert len(characters) == len(offsets)
    assert all(0 <= start < end <= len(text) for start, end in offsets)
    assert list(offsets) == sorted(offsets)

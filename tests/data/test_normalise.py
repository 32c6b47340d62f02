import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.data.normalise import duplicate_key, normalise


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_only_words_and_single_spaces_remain(text: str) -> None:
    words = normalise(text).split(" ")
    assert normalise(text) == "" or all(word and "_" not in word and word == word.strip() for word in words)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Profit UP 5% - shares rise", "profit up 5, shares rise!"),
        ("Profit up https://t.co/abc", "Profit up http://other.example/x?y=1"),
        ("see WWW.example.com now", "see now"),
        ("costs fall\nagain", "costs  fall again"),
        ("shares slip… ", "shares slipâ€¦"),
        ("net_income", "net income"),
    ],
)
def test_spellings_of_the_same_text(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_other_scripts_keep_their_letters() -> None:
    assert normalise("利润上升") != normalise("利润下降")
    assert normalise("Ñandú S.A.") == "ñandú s a"


def test_texts_of_symbols_alone_are_not_one_text() -> None:
    assert normalise("🚀🚀") == ""
    assert duplicate_key("🚀🚀") == duplicate_key(" 🚀🚀 ") != duplicate_key("📉")

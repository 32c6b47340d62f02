import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.data.text_key import text_key


@given(st.text())
def test_the_key_of_a_key_is_itself(text: str) -> None:
    assert text_key(text_key(text)) == text_key(text)


@given(st.text(st.characters(codec="latin-1")), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_unicode_form_and_case_do_not_count(text: str, form: str) -> None:
    if any(character.isalnum() for character in text):
        assert text_key(unicodedata.normalize(form, text)) == text_key(text.upper()) == text_key(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Profit UP 5% - shares rise", "profit up 5, shares rise!"),
        ("Profit up https://t.co/abc", "Profit up http://other.example/x?y=1"),
        ("see WWW.example.com now", "see now"),
        ("costs fall\nagain", "costs  fall again"),
        ("shares slip… ", "shares slipâ€¦"),
        ("net_income", "net income"),
        ("café", "cafe\u0301"),
        ("ＡＢＣ ﬁrm", "abc firm"),
        ("GROSSE STRASSE", "große Straße"),
        ("Nimbus™ and Aelfeld®", "Nimbus and Aelfeld"),
        ("❤️ it", "❤ it"),
        ("shares −5%", "shares -5%"),
        ("sales of 2016-2019", "sales of 2016 – 2019"),
        ("guidance - 5 points", "guidance: 5 points"),
        ("$NIMB :-)", "$NIMB :)"),
        ("€ 5m", "€5m"),
        ("see (page 5)", "see page 5"),
    ],
)
def test_spellings_of_the_same_text(one: str, other: str) -> None:
    assert text_key(one) == text_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Nimbus +5%", "Nimbus -5%"),
        ("Nimbus −5%", "Nimbus 5%"),
        ("loss of -$5m", "loss of $5m"),
        ("up 1.5%", "up 15%"),
        ("$NIMB 🚀", "$NIMB 📉"),
        ("$NIMB 🚀", "$NIMB"),
        ("🚀🚀", "🚀"),
        ("▲ 5%", "▼ 5%"),
        ("NIMB+3%", "NIMB-3%"),
        ("$T01+3%", "$T01-3%"),
        ("P/E < 5", "P/E > 5"),
        ("EPS ≥ 5", "EPS ≤ 5"),
        ("loss of €5m", "loss of £5m"),
        ("$NIMB :)", "$NIMB :("),
        ("👍", "👎"),
        ("!!!", "???"),
        ("利润上升", "利润下降"),
        ("कि", "का"),
    ],
)
def test_different_texts(one: str, other: str) -> None:
    assert text_key(one) != text_key(other)


def test_letters_of_all_scripts_stay() -> None:
    assert text_key("Ñandú S.A.") == "ñandú s a"
    assert text_key(" 🚀 Up, +5.5%!") == "🚀 up +5 5"

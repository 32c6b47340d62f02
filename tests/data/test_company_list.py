"""The company list: what lists append to names is removed, and names are matched as complete words, longest first."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.data.company_list import CompanyList, list_files, read_names, variants
from findistill.data.spans import check
from findistill.errors import UserError
from tests.fixtures.machine import slowness

LIST = """Acme Widgets Inc. Common Stock | Acme Widgets Holdings plc Class A Ordinary Shares | AT&T Inc. | Zephyr Corp. Warrant
J.P. Morgan Chase & Co. Common Stock | Moody's Corporation | Borealis Mining Group Ltd. | 3M | HP Inc. | Q2 Holdings Inc.
T-Mobile US | Crédit Alpin S.A. | Quill L.P. Units | Orchid 6.25% Series E Cumulative Redeemable Preferred Stock"""
NAMES = LIST.replace("\n", "|").split("|")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Acme Widgets Inc. Common Stock", ["Acme Widgets Inc", "Acme Widgets"]),
        (
            "Acme Widgets Holdings plc Class A Ordinary Shares",
            ["Acme Widgets Holdings plc", "Acme Widgets Holdings", "Acme Widgets"],
        ),
        ("Borealis Group Ltd.", ["Borealis Group Ltd", "Borealis Group", "Borealis"]),
        ("Ambo S.A. American Depositary Shares (Each representing 1 Common Share)", ["Ambo SA", "Ambo"]),
        ("Orchid Realty 6.25% Series E Cumulative Preferred Stock", ["Orchid Realty"]),
        ("Quill L.P. Units", ["Quill LP", "Quill"]),
        ("The Cobalt Company (DE) Common Stock", ["Cobalt Company", "Cobalt"]),
        ("J.P. Morgan Chase & Co.", ["JP Morgan Chase & Co", "JP Morgan Chase &", "JP Morgan Chase"]),
        ("Alpha Inc. (Class A)", ["Alpha Inc", "Alpha"]),
        ("Q2 Holdings Inc.", ["Q2 Holdings Inc", "Q2 Holdings"]),
        ("HP Inc.", ["HP Inc", "HP"]),
        ("Company Inc", ["Company Inc"]),
        ("", []),
    ],
)
def test_names_without_what_a_list_adds(name: str, names: list[str]) -> None:
    assert [" ".join(words) for words in variants(name)] == names


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Acme Widgets beats AT&T, Moody's says", ["Acme Widgets", "AT&T", "Moody's"]),
        ("ACME WIDGETS INC. and Acme  Widgets Holdings plc rise", ["ACME WIDGETS INC", "Acme  Widgets Holdings plc"]),
        ("acme widgets are cheap; zephyr is a wind", []),
        ("Zephyrs and a BigZephyr, but Zephyr-led", ["Zephyr"]),
        ("🚀 3M, HP Inc and Re\u0301mi: Crédit Alpin up", ["3M", "HP Inc", "Crédit Alpin"]),
        ("T-Mobile US and T Mobile US", ["T-Mobile US", "T Mobile US"]),
        ("J.P. Morgan Chase, JP Morgan Chase & Co. and Quill L.P.", ["J.P. Morgan Chase", "JP Morgan Chase & Co", "Quill L.P."]),
        ("Q2 results of Borealis Mining", ["Borealis Mining"]),
        ("Acme. Widgets", ["Acme. Widgets"]),
        ("Acme (maker of Widgets), Acme; Widgets", []),
        ("", []),
    ],
)
def test_mentions_are_whole_words_in_the_names_own_case(text: str, mentions: list[str]) -> None:
    [spans] = CompanyList(NAMES).spans([text])
    assert [text[span.start : span.end] for span in spans] == mentions


@given(st.text(st.sampled_from("AT&cmeWidgs HP3M.'-🚀é\u0301 "), max_size=40))
def test_spans_of_any_text_are_sound(text: str) -> None:
    [spans] = CompanyList(NAMES).spans([text])
    assert check(text, spans, ["company"], "text") == spans


def test_thousands_of_names_take_no_longer() -> None:
    texts = [f"Name{n} Widgets rises as Name{n + 1} Corp falls" for n in range(2000)]
    companies = CompanyList(f"Name{n} Widgets Inc." for n in range(7000))
    start = time.perf_counter()
    assert all(len(spans) == 1 for spans in companies.spans(texts))
    assert time.perf_counter() - start < 2 * slowness()


def test_a_list_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("ticker,company\nACM,Acme Widgets Inc.\nX,\n", encoding="utf-8")
    assert read_names(list_files(str(path)), "company") == ["Acme Widgets Inc."]
    with pytest.raises(UserError, match=r"mine.csv has no column 'name'.*ticker, company"):
        read_names(list_files(str(path)))
    monkeypatch.delenv("FINDISTILL_DATA", raising=False)
    with pytest.raises(UserError, match="set FINDISTILL_DATA"):
        list_files(None)
    (tmp_path / "companies").mkdir()
    (tmp_path / "companies" / "sp500.csv").write_text("name\nAcme\n", encoding="utf-8")
    monkeypatch.setenv("FINDISTILL_DATA", str(tmp_path))
    with pytest.raises(UserError, match="is missing although"):
        list_files(None)

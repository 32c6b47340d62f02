"""Answers with one token and tag per line, and the alignment of their tokens to the text."""

import pytest

from findistill.llm import tagged
from findistill.llm.entity_types import EntityTypes

TYPES = EntityTypes({"PER": "person", "ORG": "organization"})
TEXT = "Ann of Acme & Co . met the Bank of Oslo at Acme 's H Q"


def spans(answer: str, text: str = TEXT, types: EntityTypes = TYPES) -> list[tuple[str, str]]:
    tokens = tagged.read(answer, types)
    assert tokens is not None
    return [(text[span.start : span.end], span.label) for span in tagged.align(tokens, text).spans]


def answer(*tagged_tokens: str, text: str = TEXT) -> str:
    """All tokens of the text tagged `Other`, except the given `token:tag` pairs."""
    tags = dict(each.rsplit(":", 1) for each in tagged_tokens)
    return "\n".join(f"{token}:{tags.get(token, 'Other')}" for token in text.split())


@pytest.mark.parametrize(
    "tags",
    [
        ("Person_B", "Organisation_B", "Organisation_I"),
        ("Person", "Organisation", "Organisation"),
        ("B-PER", "B-ORG", "I-ORG"),
        ("B_Person.", " organization_b", "Organization-I,"),
        ("S-PER", "B-ORG", "E-ORG"),
    ],
)
def test_spellings_of_tags(tags: tuple[str, str, str]) -> None:
    person, first, second = tags
    text = "Ann runs Acme Group"
    assert spans(f"Ann:{person}\nruns:Other\nAcme:{first}\nGroup:{second}", text) == [("Ann", "PER"), ("Acme Group", "ORG")]


@pytest.mark.parametrize("separator", [":", " : ", "\t", " | ", " -> ", " "])
def test_what_stands_between_token_and_tag(separator: str) -> None:
    lines = [f"{token}{separator}{tag}" for token, tag in [("Ann", "B-PER"), ("runs", "O"), (":", "O"), ("Acme", "B-ORG")]]
    assert spans("\n".join(lines), "Ann runs : Acme") == [("Ann", "PER"), ("Acme", "ORG")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("Ann:Person_B\nof:Other\nAcme:Organisation_B\nCo:Organisation_I\nmet:Other", "Acme & Co"),  # dropped inside
        ("Ann:Person_B\nof:Other\nAcme & Co .:Organisation_B\nmet:Other", "Acme & Co ."),  # merged
        ("Ann:Person_B\nAc:Organisation_B\nme:Organisation_I\n&:Other\nmet:Other\nof:Other", None),  # split, but a token is lost
        ("Ann:Person_B\nof:Other\nAc:Organisation_B\nme:Organisation_I\n&:Other\nCo:Other", "Acme"),  # split
        ("Ann:Person_B\nwho:Other\nof:Other\nAcme:Organisation_B\nmet:Other", "Acme"),  # invented
        ("Ann_B:Person\nof:Other\nAcme_Organisation_B:Organisation\nmet:Other", "Acme"),  # tag attached to the token
        ('"Ann":Person_B\nof:Other\nAcme_&_Co:Organisation_B\nmet:Other', "Acme & Co"),
        ("ANN:Person_B\nOF:Other\nACME:Organisation_B\nmet:Other", "Acme"),
    ],
)
def test_tokens_that_are_not_the_texts(lines: str, expected: str | None) -> None:
    assert spans(lines)[0] == ("Ann", "PER")
    assert [form for form, label in spans(lines) if label == "ORG"] == ([expected] if expected else [])


def test_the_same_token_twice_is_where_its_neighbours_are() -> None:
    assert spans("the:Other\nBank:Other\nof:Other\nOslo:Other\nat:Other\nAcme:Organisation_B\n's:Other") == [("Acme", "ORG")]
    tokens = tagged.read("at:Other\nAcme:Organisation_B\n's:Other", TYPES)
    assert tokens and tagged.align(tokens, TEXT).spans[0].start == TEXT.rindex("Acme")


def test_a_name_does_not_go_on_over_many_dropped_words() -> None:
    assert spans("Ann:Person_B\nAcme:Organisation_B\nOslo:Organisation_I\nH Q:Other") == [
        ("Ann", "PER"), ("Acme", "ORG"), ("Oslo", "ORG"),
    ]  # fmt: skip


def test_a_word_is_not_found_inside_another() -> None:
    tokens = tagged.read("a:Organisation_B\nmet:Other\nthe:Other", TYPES)
    assert tokens and tagged.align(tokens, "Acmea met the").lost == ["a"]


@pytest.mark.parametrize("text", ["🚀🚀 Ann runs Acme", "e\u0301e\u0301 Ann runs Acme", "👩\u200d💻 — Ann runs Acme"])
def test_what_stands_before_a_name_does_not_move_it(text: str) -> None:
    assert spans("Ann:B-PER\nruns:O\nAcme:B-ORG", text) == [("Ann", "PER"), ("Acme", "ORG")]


@pytest.mark.parametrize(
    "response", ["", "Robin works for Acme.", "Person: Ann\nOrganisation: Acme", "Here:\nAnn\nof\nAcme:B-ORG"]
)
def test_what_is_no_tagging(response: str) -> None:
    assert tagged.read(response, TYPES) is None


def test_types_that_are_none_of_the_datas_are_outside_and_counted() -> None:
    tokens = tagged.read("Ann:Person_B\nin:Other\nOslo:Location_B\nJune:Date_B", TYPES)
    assert tokens and tokens.other == ("location", "Date_B")
    mapped = EntityTypes({"company": "company"}, {"Organisation": "company"})
    assert spans("Ann:Person_B\nof:Other\nAcme:Organisation_B", types=mapped) == [("Acme", "company")]


def test_all_tokens_align_where_the_answer_has_them_all() -> None:
    tokens = tagged.read(answer("Acme:Organisation_B"), TYPES)
    assert tokens is not None
    aligned = tagged.align(tokens, TEXT)
    assert aligned.aligned == aligned.tokens == len(TEXT.split())

"""Lists of names in the formats that models write."""

import pytest

from findistill.llm import mentions
from findistill.llm.entity_types import EntityTypes

ONE = EntityTypes({"company": "company"})
SEVERAL = EntityTypes({"PER": "person", "ORG": "organization"})

ACME, ACME_AND_MACYS = [("Acme", None)], [("Acme", None), ("Macy's", None)]
WITH_USUAL = [("Acme", "Acme Inc"), ("Bolt", None)]


def read(response: str, types: EntityTypes = ONE, **options: bool) -> list[tuple[str, str | None]] | None:
    result = mentions.read(response, types, "Headline:", **options)
    return None if result is None else [(each.form, each.normalized) for each in result.mentions]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ('{"result": ["Acme"]}', ACME),
        ('{"result": []}', []),
        ('{"result": null}', []),
        ("[]", []),
        ('{"result": ["Acme", "Bolt"], "normalized_result": ["Acme Inc", null]}', WITH_USUAL),
        ('Sure! Here it is:\n```json\n{"result": ["Acme"]}\n```\nLet me know [if] you need more.', ACME),
        ('<think>Is Bolt {one}?</think>{"result": ["Acme"]}', ACME),
        ("{'result': ['Acme', 'Macy's']}", ACME_AND_MACYS),
        ("{'result': ['Acme', 'Macy\\'s']}", ACME_AND_MACYS),
        ('{"result": ["Acme", "Macy\'s",],}', ACME_AND_MACYS),
        ("{“result”: [“Acme”, “Macy's”]}", ACME_AND_MACYS),
        ('{"result": ["Acme "Big" Co"]}', [('Acme "Big" Co', None)]),
        ("{'result': ['Acme', 'Bolt'], 'normalized_result': ['Acme Inc', None]}", WITH_USUAL),
        ('{"Result": ["Acme"]}', ACME),
        ('{"companies": ["Acme"]}', ACME),
        ('{"company": "Acme"}', ACME),
        ('{"company_names": ["Acme"]}', ACME),
        ('{"answer": {"result": ["Acme"]}}', ACME),
        ('["Acme"]', ACME),
        ('[{"name": "Acme", "normalized": "Acme Inc"}, {"name": "Bolt"}]', WITH_USUAL),
        ('{"entities": [{"text": "Acme", "label": "COMPANY", "start": 0}]}', ACME),
        ('{"name": "Acme"}\n{"name": "Macy\'s"}', ACME_AND_MACYS),
        ('{"Acme": "company"}', ACME),
        ('{"result": ["Acme", "Acme", " "]}', ACME),
        ('{"result": ["Acme"]}\nHeadline: Bolt falls\n{"result": ["Bolt"]}', ACME),
        ('{"result": ["Acme"]} To repeat: {"result": ["Acme"]}', ACME),
        ('{"result": ["Soci\\u00e9t\\u00e9 A"]}', [("Société A", None)]),
    ],
)
def test_forms_of_a_list(response: str, expected: list[tuple[str, str | None]]) -> None:
    assert read(response) == expected


@pytest.mark.parametrize(
    "response",
    [
        "",
        "There are no companies.",
        '{"result": ["Acme", "Bo',
        '{"result": ["Acme"], "normalized_result": ["Ac',
        '[{"name": "Acme"}, {"na',
        '{"name": "Acme"}\n{"na',
        "```json\n{'result': ['Acme',",
        '{"result": ["Acme"]} or rather {"result": ["Bolt"]}',
        '{"result": [1, 2]}',
        '{"result": {"a": 1}}',
        '{"error": "I cannot do that"}',
        '<think>{"result": ["Acme"]}',
        "[" * 5000,
    ],
)
def test_what_is_no_list(response: str) -> None:
    assert read(response) is None


def test_a_limit_of_tokens_cuts_the_talk_but_not_the_list() -> None:
    assert read('{"result": ["Acme"]} as it is ment', cut=True) == ACME
    assert read('{"name": "Acme"}\n', cut=True) is None  # another object may have followed
    assert mentions.unfinished('{"result": ["Acme", "Bo') and not mentions.unfinished('{"result": []}')


def test_usual_names_that_are_not_as_many_are_dropped() -> None:
    result = mentions.read('{"result": ["Acme", "Bolt"], "normalized_result": ["Acme Inc"]}', ONE, "Text:")
    assert result and result.unmatched and [each.normalized for each in result.mentions] == [None, None]


@pytest.mark.parametrize(
    "response",
    [
        '{"person": ["Ann"], "organization": ["Acme"]}',
        '{"People": ["Ann"], "Organisations": ["Acme"]}',
        '{"PER": "Ann", "ORG": ["Acme"], "LOC": ["Oslo"]}',
        '{"result": [{"name": "Ann", "type": "Person"}, {"name": "Acme", "type": "org"}, {"name": "Oslo", "type": "GPE"}]}',
        '{"Ann": "person", "Acme": "organisation"}',
    ],
)
def test_several_types(response: str) -> None:
    result = mentions.read(response, SEVERAL, "Text:")
    assert result and [(each.form, each.label) for each in result.mentions] == [("Ann", "PER"), ("Acme", "ORG")]
    assert result.other == (("GPE",) if "GPE" in response else ())


def test_names_without_a_type_are_no_answer_where_there_are_several() -> None:
    assert read('["Ann", "Acme"]', SEVERAL) is None


@pytest.mark.parametrize(
    "response",
    [
        "Person: Ann\nOrganisation: Acme, Bolt, Inc.\nLocation: Oslo",
        "The text names:\n- **Persons**: Ann\n- **Organizations**: Acme, Bolt, Inc.\n- Locations: Oslo",
        "Person: [Ann]; Organisation: Acme; Organisation: Bolt, Inc.; Location: Oslo; Other: none",
    ],
)
def test_lines_of_a_type_and_names(response: str) -> None:
    result = mentions.read_lines(response, SEVERAL)
    assert result and result.other == ("location",)
    assert [(each.form, each.label) for each in result.mentions] == [("Ann", "PER"), ("Acme", "ORG"), ("Bolt, Inc", "ORG")]


def test_lines_that_name_nothing_and_lines_that_are_none() -> None:
    result = mentions.read_lines("Companies: none", ONE)
    assert result and not result.mentions
    for response in (
        "There is no company here.",
        '{"company": "Acme',
        '{"company": "Acme"} or {"company": "Bolt"}',
        "Note: Acme",
    ):
        assert mentions.read_lines(response, ONE) is None

"""Python values survive Hydra's grammar, and printed overrides also survive a shell."""

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from findistill.config.overrides import as_overrides, mapping_of, typed


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        1e-05,
        "a b",
        "it's",
        "\\'",
        "null",
        "1",
        "",
        "a=b,c",
        ["a", "b c", 1],
        {"up": "a b", "b c": 1},
        "ünï",
    ],
)
def test_a_value_is_what_hydra_reads(value: object) -> None:
    [override] = OverridesParser.create().parse_overrides(as_overrides({"section": {"key": value}}))
    assert override.key_or_group == "section.key" and override.value() == value


TYPED = [
    {"up": "positive"},
    {"up": "positive", "down": None, "LABEL_0": "very good"},
    {"0": "negative", "1": "it's"},
    {"利好": "positive", "利空": "negative"},
    {"it's": "a", "null": "b", "true": "c", "$HOME": "d", "`id`": 'e"', "a: b, {c}": "f!", "": "g", " x ": "h"},
    {"M&A": "x;y", "a=b": "\\", "-1": "negative", "1.5": "rate cut", "007": "y", "#1": "z"},
    ["a", "b c", "it's", "利好", "$x"],
    "a b; rm -rf $HOME",
    "it's `id`",
    "plain",
]


def test_what_is_printed_works_when_it_is_typed() -> None:
    command = "".join(f"printf '%s\\0' {typed('section.key', value)}\n" for value in TYPED)
    shell = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10, check=True)
    words = shell.stdout.split("\0")[:-1]
    overrides = OverridesParser.create().parse_overrides(words)
    values = [override.value() for override in overrides]
    mappings = [mapping_of(value) if isinstance(expected, dict) else value for value, expected in zip(values, TYPED, strict=True)]
    actual = [{str(key): each for key, each in value.items()} if isinstance(value, dict) else value for value in mappings]
    assert actual == TYPED
    assert typed("a.b", TYPED[0]) == "'a.b={up: positive}'"  # the same form wherever it is printed

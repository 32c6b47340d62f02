"""Values of Python survive Hydra's grammar."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from findistill.config.overrides import as_overrides


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

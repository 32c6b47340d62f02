"""Labels of models and data: matched by name, known spelling or mapping; others are refused with a mapping to complete."""

import logging
import re
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from findistill.errors import UserError
from findistill.models.label_names import match_labels

LABELS = ("negative", "neutral", "positive")


def columns(model_labels: Any, labels: Any = LABELS, label_map: Any = None) -> list[int]:
    return match_labels(model_labels, labels, model="m", label_map=label_map).tolist()


@pytest.mark.parametrize(
    ("model_labels", "labels", "expected"),
    [
        (("Positive", "Negative", "Neutral"), LABELS, [2, 0, 1]),
        (("up", "Up"), ("Up", "up"), [1, 0]),
        (("ＰＯＳＩＴＩＶＥ", "negative ", "NEUTRAL"), LABELS, [2, 0, 1]),  # full-width letters
        (("Straße", "weg"), ("WEG", "STRASSE"), [1, 0]),
        (("Bullish", "Bearish", "Neutral"), LABELS, [2, 0, 1]),
        (("pos", "neg", "neu"), LABELS, [2, 0, 1]),
        (("POS", "NEG"), ("negative", "positive"), [1, 0]),
        (("Positive", "Negative", "Neutral"), ("bearish", "neutral", "bullish"), [2, 0, 1]),
        (("利好", "利空"), ("利空", "利好"), [1, 0]),
        (("negative", "neutral", "positive"), ("positive", "negative"), [1, -1, 0]),  # a known subset
    ],
)
def test_names_and_known_spellings_match(model_labels: Any, labels: Any, expected: list[int]) -> None:
    assert columns(model_labels, labels) == expected


@pytest.mark.parametrize(
    ("model_labels", "labels"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), LABELS),
        (("neutral", "up", "down"), LABELS),  # only one shared name
        (("negative", "positive"), LABELS),  # never predicts neutral
        (("Bullish", "Bearish"), LABELS),
        (("pos", "bullish", "neg"), LABELS),  # two spellings of one label
        (("pos", "neg", "neu", "mixed"), LABELS),
        (("1 star", "2 stars", "3 stars"), LABELS),
        (("上涨", "下跌"), ("利好", "利空")),
        (("0", "1", "2"), LABELS),
        (("true", "null", "it's"), LABELS),
    ],
)
def test_other_names_are_refused_with_a_mapping_that_can_be_typed(model_labels: Any, labels: Any) -> None:
    with pytest.raises(UserError, match=r"the model m .*\n.*id2label") as error:
        columns(model_labels, labels)
    word = re.search(r"such as (.*); or edit", str(error.value))
    assert word
    [override] = shlex.split(word[1])
    mapping = OverridesParser.create().parse_override(override).value()
    result = columns(model_labels, labels, mapping)
    assert set(result) - {-1} == set(range(len(labels))) or len(model_labels) < len(labels)


def test_mappings() -> None:
    assert columns(("up", "down", "flat"), label_map={"up": "positive", "down": "negative", "flat": "neutral"}) == [2, 0, 1]
    assert columns(("up", "Negative", "neutral"), label_map={"Up": "positive"}) == [2, 0, 1]
    assert columns(("0", "1"), label_map={0: "negative", 1: "positive"}) == [0, 2]  # an explicit map allows two labels for three
    assert columns(("上涨", "下跌", "?"), label_map='{上涨: positive, "下跌": negative, "?": null}') == [2, 0, -1]  # as a string
    assert columns(("a", "b", "c", "d"), label_map=["positive", None, "negative", "neutral"]) == [2, -1, 0, 1]


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"upp": "positive"}, "evaluate.label_map.upp: m has no such label; it has up, down"),
        ({"up": "positve", "down": "negative"}, "evaluate.label_map: 'positve' is not one of the data's labels"),
        (["positive"], "give a label for each of the 2 labels of m"),
        ("positive", "give a label for each of the 2 labels of m"),
        ([None, None], "evaluate.label_map maps no output of m to a label"),
    ],
)
def test_mappings_that_do_not_fit(label_map: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        columns(("up", "down"), label_map=label_map)


def test_a_choice_among_fewer_labels_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        match_labels(LABELS, ("positive", "negative"), model="another")
    assert "another has labels that the data lacks (neutral)" in caplog.text

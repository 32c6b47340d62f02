"""Which label a response names."""

import time

import pytest

from findistill.llm.answers import AnswerReader, visible
from tests.fixtures.machine import slowness

SENTIMENT = ("negative", "neutral", "positive")
RATINGS = ("1", "2", "3", "4", "5")
CHINESE = ("积极", "消极", "中性", "非常积极")
TOPICS = ("rate", "rate cut", "M&A", "earnings")


def reader(labels: tuple[str, ...], header: str = "Label:", steps: tuple[str, ...] = ()) -> AnswerReader:
    return AnswerReader({label: label for label in labels}, header, steps)


@pytest.mark.parametrize(
    ("labels", "response", "label"),
    [
        (SENTIMENT, "<think>negative</think>\n\npositive", "positive"),
        (SENTIMENT, "negative?</think>positive", "positive"),
        (SENTIMENT, "<think>it is positive", None),
        (SENTIMENT, "positive <think>or negative", None),
        (SENTIMENT, "[THINK]negative[/THINK]**Positive**", "positive"),
        (SENTIMENT, '"positive"', "positive"),
        (SENTIMENT, "**Label**: **Positive.**", "positive"),
        (SENTIMENT, "Positive. The negative effects are small.", "positive"),
        (SENTIMENT, "positive\nI hope that this helps!", "positive"),
        (SENTIMENT, "ＰＯＳＩＴＩＶＥ！", "positive"),
        (SENTIMENT, '{"result": {"class": ["Positive"], "confidence": 0.9}}', "positive"),
        (SENTIMENT, "{'label': 'positive',}", "positive"),
        (SENTIMENT, '{"first": "positive", "second": "negative"}', None),
        (SENTIMENT, '{\n "reason": "positive",\n "label": "neg', None),
        (SENTIMENT, "Label: positive\n\nText: Sales fell.\nLabel: negative", "positive"),
        (SENTIMENT, "Label: negative, neutral or positive", None),
        (SENTIMENT, "not positive", None),
        (SENTIMENT, "neither positive nor negative, so neutral", "neutral"),
        (SENTIMENT, "It isn't negative; it is positive.", "positive"),
        (SENTIMENT, "unpositive", None),
        (("very positive", "positive"), "It is very positive.", "very positive"),
        (("very positive", "positive"), '{"label": "Very_Positive"}', "very positive"),
        (TOPICS, "A rate cut, I think", "rate cut"),
        (TOPICS, "**M&A**", "M&A"),
        (TOPICS, "separate", None),
        (RATINGS, "4/5", "4"),
        (RATINGS, "on a 1-5 scale: 3", "3"),
        (RATINGS, '{"rating": 4.0}', "4"),
        (RATINGS, "4.5", None),
        (RATINGS, "45", None),
        (("-1", "0", "1"), "Label: -1", "-1"),
        (CHINESE, "这条新闻的情绪是积极的。", "积极"),
        (CHINESE, "这是非常积极的", "非常积极"),
        (CHINESE, "标签：「消极」", "消极"),
        (CHINESE, "不积极", None),
        (CHINESE, "积极还是消极", None),
        (("إيجابي", "سلبي"), "إِيجَابِيّ.", "إيجابي"),
    ],
)
def test_labels(labels: tuple[str, ...], response: str, label: str | None) -> None:
    assert reader(labels).label(response) == label


def test_a_step_is_no_answer() -> None:
    steps = reader(SENTIMENT, "Sentiment:", ("Opinion:",))
    assert steps.label("Opinion: positive at first.\nSentiment: negative") == "negative"
    assert steps.label("Opinion: it looks positive in that the") is None
    assert steps.label('{"opinion": "positive"}') is None


def test_of_a_cut_response_only_what_is_whole_counts() -> None:
    sentiment = reader(SENTIMENT)
    for response in ("positive", "It is positive", "Label: positive", "Label: positive because\n"):
        assert sentiment.label(response, cut=True) is None
    for response in ('{"label": "positive"}\n\n  ', "Label: positive\nbecause of the", "positive\n"):
        assert sentiment.label(response, cut=True) == "positive"


@pytest.mark.parametrize(
    "response", ["[" * 10**6, '{"a":' * 10**5, "{" * 10**6 + "}" * 10**6, "<think>" * 10**5, "not " * 10**5, '{"a":1}' * 10**5]
)
def test_hostile_responses_take_no_time(response: str) -> None:
    started = time.perf_counter()
    assert reader(SENTIMENT).label(response) is None
    assert time.perf_counter() - started < slowness()


def test_thinking_is_taken_out() -> None:
    assert visible("a<think>b</think>c") == "ac" and visible("<think>a") is None and visible("plain") == "plain"

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from findistill.llm.votes import Votes, certainty

LABELS = ["negative", "neutral", "positive"]
answers = st.lists(st.sampled_from([*LABELS, None]), max_size=12)


def test_majority_and_shares() -> None:
    votes = Votes.from_labels(["positive", "neutral", None, "positive"])
    assert (votes.hard, votes.agreement, votes.n_valid, votes.n_samples) == ("positive", 2, 3, 4)
    assert votes.soft(LABELS) == [0.0, 1 / 3, 2 / 3]


def test_a_tie_goes_to_the_label_answered_first() -> None:
    assert Votes.from_labels(["neutral", "positive", "positive", "neutral"]).hard == "neutral"
    assert Votes.from_labels([None, "positive", "neutral", "neutral", "positive"]).hard == "positive"


def test_no_valid_answer() -> None:
    votes = Votes.from_labels([None, None])
    assert (votes.hard, votes.agreement, votes.n_valid) == (None, 0, 0)
    assert votes.soft(LABELS) == [0.0, 0.0, 0.0]


@given(answers)
def test_counts_shares_and_agreement_fit_together(labels: list[str | None]) -> None:
    votes = Votes.from_labels(labels)
    shares = votes.soft(LABELS)
    assert votes.n_valid <= votes.n_samples == len(labels)
    assert [round(share * votes.n_valid) for share in shares] == [labels.count(label) for label in LABELS]
    if votes.hard is None:
        assert not any(labels)
    else:
        assert sum(shares) == pytest.approx(1)
        assert votes.agreement == labels.count(votes.hard) == max(labels.count(label) for label in LABELS)


@given(answers, st.randoms())
def test_order_matters_to_ties_only(labels: list[str | None], draw: Random) -> None:
    shuffled = draw.sample(labels, len(labels))
    one, other = Votes.from_labels(labels), Votes.from_labels(shuffled)
    assert (one.counts, one.n_samples, one.agreement) == (other.counts, other.n_samples, other.agreement)


def test_impossible_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="without votes"):
        Votes({"positive": 0}, 2)
    with pytest.raises(ValueError, match="out of 2"):
        Votes({"positive": 3}, 2)
    with pytest.raises(KeyError, match="bullish"):
        Votes({"bullish": 1}, 1).soft(LABELS)


def test_certainty_of_spans_is_that_of_the_least_certain_candidate() -> None:
    assert certainty([{"votes": 8}, {"votes": 5}], 8) == 5 / 8
    assert certainty([{"votes": 8}, {"votes": 3}], 8) == 5 / 8  # three named a span that the majority did not
    assert certainty([{"votes": 4}], 8) == 0.5 and certainty([], 8) == 1 and certainty([], 0) == 0

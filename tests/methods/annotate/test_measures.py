"""An annotator's metrics against naive implementations."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from findistill.llm.votes import needed
from findistill.methods.annotate.measures import NONE, majority, measure

Answers = list[list[str | None]]
Annotation = Callable[..., pd.DataFrame]


def most_frequent(answers: list[str | None]) -> str | None:
    """The reference implementation: a tie goes to the label that was answered first."""
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)


def draw_answers(texts: int = 60, samples: int = 5) -> tuple[Answers, list[str]]:
    random = np.random.default_rng(3)
    gold = random.choice(["negative", "neutral", "positive"], texts).tolist()
    answers = [random.choice([own, "neutral", "positive", None], samples, p=[0.55, 0.2, 0.15, 0.1]).tolist() for own in gold]
    answers[0] = [None] * samples
    answers[1] = ["positive", "neutral", None, "neutral", "positive"][:samples]
    return answers, gold


def test_majority_breaks_ties_by_the_first_answer_and_knows_no_answer() -> None:
    answers = np.array([[2, 0, 0, 2], [0, 2, 2, 0], [NONE, 1, NONE, NONE], [NONE] * 4, [0, 1, 1, NONE]])
    assert majority(answers).tolist() == [2, 0, 1, NONE, 1]
    assert majority(np.full((2, 3), NONE)).tolist() == [NONE, NONE]


def test_agreement_and_coverage_by_plain_loops(new_annotation: Annotation, tmp_path: Path) -> None:
    answers, gold = draw_answers()
    votes = new_annotation(tmp_path / "a", answers, gold)
    metrics = measure(votes, tmp_path / "a", 5)
    hard = [most_frequent(own) for own in answers]
    agreement = [max(Counter(answer for answer in own if answer).values(), default=0) for own in answers]
    assert metrics["annotate/coverage"] == pytest.approx(59 / 60)
    assert metrics["annotate/valid_share"] == pytest.approx(np.mean([answer is not None for own in answers for answer in own]))
    assert metrics["annotate/accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(hard, gold, strict=True)]))
    for threshold in range(1, 6):
        rows = [row for row, level in enumerate(agreement) if level >= threshold]
        assert metrics[f"annotate/kept_share_{threshold}"] == pytest.approx(len(rows) / 60)
        assert metrics[f"annotate/accuracy_at_{threshold}"] == pytest.approx(np.mean([hard[row] == gold[row] for row in rows]))


def test_a_threshold_that_no_text_has_exactly_still_has_its_accuracy(new_annotation: Annotation, tmp_path: Path) -> None:
    votes = new_annotation(tmp_path / "a", [["neutral"] * 4, ["neutral", "neutral", "positive", None]], ["neutral", "positive"])
    metrics = measure(votes, tmp_path / "a", 4)
    assert [metrics[f"annotate/accuracy_at_{threshold}"] for threshold in (1, 2, 3, 4)] == [0.5, 0.5, 1.0, 1.0]


def test_accuracy_by_samples_is_that_over_all_orders(new_annotation: Annotation, tmp_path: Path) -> None:
    answers, gold = draw_answers()
    metrics = measure(new_annotation(tmp_path / "a", answers, gold), tmp_path / "a", 5)
    for count in range(1, 6):
        exact = np.mean([
            [most_frequent([own[at] for at in order[:count]]) == right for order in permutations(range(5))]
            for own, right in zip(answers, gold, strict=True)
        ])  # fmt: skip
        assert metrics[f"annotate/accuracy_samples_{count}"] == pytest.approx(exact, abs=0.02)  # 20 of the 120 orders


def test_stopping_is_the_annotators_own(new_annotation: Annotation, tmp_path: Path) -> None:
    answers, gold = draw_answers()
    metrics = measure(new_annotation(tmp_path / "a", answers, gold), tmp_path / "a", 5)
    for stop_at in range(2, 6):
        counts, right = [], []
        for own, truth in zip(answers, gold, strict=True):
            so_far: list[str | None] = []
            while more := needed(Counter(a for a in so_far if a is not None), 5 - len(so_far), stop_at):
                so_far = own[: len(so_far) + more]
            counts.append(len(so_far))
            right.append(most_frequent(so_far) == truth)
        assert metrics[f"annotate/stop_{stop_at}_samples"] == pytest.approx(np.mean(counts))
        assert metrics[f"annotate/stop_{stop_at}_accuracy"] == pytest.approx(np.mean(right))
    # After more than half of the samples, the majority can no longer change.
    assert all(metrics[f"annotate/stop_{stop_at}_accuracy"] == metrics["annotate/accuracy"] for stop_at in (3, 4, 5))
    assert metrics["annotate/stop_2_samples"] < metrics["annotate/stop_3_samples"] < 5


def test_effort_and_cost(new_annotation: Annotation, tmp_path: Path) -> None:
    answers: Answers = [["neutral", "neutral"], ["positive", None], [None, None], ["neutral", "positive"]]
    gold = ["neutral", "positive", "neutral", "positive"]
    metrics = measure(new_annotation(tmp_path / "a", answers, gold, dollars=0.02), tmp_path / "a", 2)
    assert metrics["annotate/samples_per_text"] == 2 and metrics["annotate/tokens_per_text"] == 240
    assert metrics["annotate/seconds_per_1000_texts"] == 1000
    assert metrics["cost/usd"] == 0.02 and metrics["cost/usd_per_1000_texts"] == pytest.approx(5)
    assert metrics["cost/usd_per_correct_label"] == pytest.approx(0.01)  # two of four are right
    unpriced = measure(new_annotation(tmp_path / "b", answers, gold), tmp_path / "b", 2)
    assert not [name for name in unpriced if name.startswith("cost/")]


def test_no_price_a_correct_label_where_none_is_correct(new_annotation: Annotation, tmp_path: Path) -> None:
    metrics = measure(new_annotation(tmp_path / "a", [["neutral"]], ["positive"], dollars=1.0), tmp_path / "a", 1)
    assert metrics["annotate/accuracy"] == 0 and "cost/usd_per_correct_label" not in metrics


def test_without_gold_labels_there_is_no_accuracy(new_annotation: Annotation, tmp_path: Path) -> None:
    votes = new_annotation(tmp_path / "a", [["neutral", "neutral"], ["neutral", "positive"]], [None, None])
    metrics = measure(votes, tmp_path / "a", 2)
    assert metrics["annotate/kept_share_2"] == 0.5
    assert not [name for name in metrics if "accuracy" in name or "stop" in name]


def test_rows_without_gold_do_not_count_as_wrong(new_annotation: Annotation, tmp_path: Path) -> None:
    votes = new_annotation(tmp_path / "a", [["neutral"], ["neutral"], ["positive"]], ["neutral", None, "neutral"])
    metrics = measure(votes, tmp_path / "a", 1)
    assert metrics["annotate/accuracy"] == metrics["annotate/accuracy_samples_1"] == 0.5


def test_what_was_not_drawn_is_not_replayed(new_annotation: Annotation, tmp_path: Path) -> None:
    stopped = measure(new_annotation(tmp_path / "a", [["neutral"] * 3, ["neutral"] * 4], ["neutral"] * 2), tmp_path / "a", 4)
    assert not [name for name in stopped if "_samples_" in name or "stop_" in name]
    # Two annotators with two samples each are not one with four, though the numbers agree.
    votes = new_annotation(tmp_path / "b", [["neutral"] * 4], ["neutral"])
    path = tmp_path / "b" / "samples.jsonl"
    path.write_text("".join(json.dumps({"annotator": "one", **json.loads(line)}) + "\n" for line in path.open()))
    assert not [name for name in measure(votes, tmp_path / "b", 4) if "_samples_" in name or "stop_" in name]

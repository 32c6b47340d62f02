"""Reviewers' agreement beyond chance: Cohen's kappa for two, Krippendorff's alpha for more; for spans also pairwise F1."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from crowdkit.metrics.data import alpha_krippendorff
from sklearn.metrics import cohen_kappa_score

from findistill.data.spans import to_bio, words
from findistill.methods.review.decisions import Decision, by_text


def agreement(decisions: Sequence[Decision]) -> dict[str, float]:
    """Measures over the texts that at least two reviewers decided on; empty if there are none.

    `review/kappa` (two reviewers) or `review/alpha` (more) is over labels or, for spans, over the BIO tags of words.
    `review/span_f1` (spans only) is the exact F1 of one reviewer's spans against another's, over all pairs of reviewers.
    `review/agreed_share`: the share of those texts to which all reviewers gave the same answer.
    """
    decided = [each for each in decisions if each.answer is not None]
    shared = [group for group in by_text(decided).values() if len(group) > 1]
    if not shared:
        return {}
    measures = {"review/agreed_share": float(np.mean([len({each.answer for each in group}) == 1 for group in shared]))}
    units = [(each.id, each.reviewer, each.answer) for group in shared for each in group if isinstance(each.answer, str)]
    if not units:
        measures["review/span_f1"] = _span_f1(shared)
        units = [unit for group in shared for each in group for unit in _tags(each)]
    name, value = _beyond_chance(pd.DataFrame(units, columns=["task", "worker", "label"]))
    return measures | ({} if np.isnan(value) else {name: value})


def _beyond_chance(units: pd.DataFrame) -> tuple[str, float]:
    """NaN if all answers are the same label: agreement cannot be distinguished from chance."""
    reviewers = sorted(units["worker"].unique())
    name = "review/kappa" if len(reviewers) == 2 else "review/alpha"
    if units["label"].nunique() < 2:
        return name, float("nan")
    if len(reviewers) > 2:
        return name, float(alpha_krippendorff(units))
    table = units.pivot(index="task", columns="worker", values="label").dropna()
    return name, float(cohen_kappa_score(table[reviewers[0]], table[reviewers[1]]))


def _tags(decision: Decision) -> list[tuple[str, str, str]]:
    assert isinstance(decision.answer, tuple)
    tags = to_bio(decision.answer, words(decision.text))
    return [(f"{decision.id}\t{number}", decision.reviewer, tag) for number, tag in enumerate(tags)]


def _span_f1(shared: Sequence[Sequence[Decision]]) -> float:
    """1 if nobody marked anything."""
    common = total = 0
    for group in shared:
        for one, other in combinations(group, 2):
            common += 2 * len({*(one.answer or ())} & {*(other.answer or ())})
            total += len(one.answer or ()) + len(other.answer or ())
    return common / total if total else 1.0

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm import demonstrations
from findistill.llm.config import Shots
from findistill.llm.prompts import Demonstration

LABELS = LabelSet(("negative", "neutral", "positive"))
POOL = pd.DataFrame({"text": [f"text number {i}" for i in range(30)], "label": [*LABELS.names] * 10})


def embed(texts: list[str]) -> np.ndarray:
    """Unit vectors on a quarter circle, at an angle that grows with the number in the text."""
    angles = np.array([float(text.strip("!").split()[-1]) for text in texts]) / 40
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture(autouse=True)
def _embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations.embeddings, "embed_once", embed)


def select(texts: list[str], *settings: object) -> list[tuple[Demonstration, ...]]:
    chosen = demonstrations.select(texts, *settings)  # type: ignore[arg-type]
    return [chosen.of(row) for row in range(len(texts))]


def texts_of(shots: tuple) -> list[str]:
    return [each.text for each in shots]


def test_the_nearest_stands_last() -> None:
    shots = select(["new 10.2", "new 3.9"], POOL, LABELS, Shots(k=3, selection="nearest"))
    assert [texts_of(each) for each in shots] == [
        ["text number 9", "text number 11", "text number 10"],
        ["text number 5", "text number 3", "text number 4"],
    ]
    assert shots[0][-1].label == POOL["label"][10]


def test_a_text_is_never_its_own_demonstration() -> None:
    texts = ["Text NUMBER: 10!", "new 10.2"]
    for selection in ("nearest", "random", "balanced"):
        for shots in select(texts, POOL, LABELS, Shots(k=24, selection=selection)):
            assert "text number 10" not in texts_of(shots)
            assert len(set(texts_of(shots))) == 24


def test_random_and_balanced_are_the_same_for_all_texts_and_follow_the_seed() -> None:
    for selection in ("random", "balanced"):
        first, second = select(["a", "b"], POOL, LABELS, Shots(k=7, selection=selection, seed=1))
        assert first == second == select(["c"], POOL, LABELS, Shots(k=7, selection=selection, seed=1))[0]
        assert first != select(["c"], POOL, LABELS, Shots(k=7, selection=selection, seed=2))[0]


def test_balanced() -> None:
    shots = select(["a"], POOL, LABELS, Shots(k=7, selection="balanced"))[0]
    assert sorted(Counter(each.label for each in shots).values()) == [2, 2, 3]


def test_rationales_are_kept() -> None:
    pool = POOL.assign(rationale=["because", None, " "] * 10)
    shots = select(["a"], pool, LABELS, Shots(k=30, selection="random"))[0]
    assert {(each.label, each.rationale) for each in shots} == {
        ("negative", ("because",)),
        ("neutral", None),
        ("positive", None),
    }


def test_zero_shots_need_no_pool() -> None:
    assert select(["a", "b"], POOL.iloc[:0], LABELS, Shots(k=0)) == [(), ()]


@pytest.mark.parametrize(
    ("pool", "shots", "message"),
    [
        (POOL.iloc[:0], Shots(k=1), "shots.k=1"),
        (POOL, Shots(k=31), "only 30"),
        (POOL[POOL["label"] != "neutral"], Shots(k=6, selection="balanced"), "labelled neutral"),
    ],
)
def test_mistakes(pool: pd.DataFrame, shots: Shots, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(["a"], pool, LABELS, shots)


def test_an_order_permutes_what_was_chosen() -> None:
    for selection in ("nearest", "balanced"):
        plain = select(["new 10.2", "new 3.9"], POOL, LABELS, Shots(k=6, selection=selection))
        orders = [
            select(["new 10.2", "new 3.9"], POOL, LABELS, Shots(k=6, selection=selection, order_seed=seed)) for seed in (1, 2)
        ]
        assert orders[0] != plain and orders[0] != orders[1]
        for order in orders:
            assert [sorted(texts_of(each)) for each in order] == [sorted(texts_of(each)) for each in plain]


def test_the_nearest_are_found_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"new {i}.2" for i in range(7)]
    whole = select(texts, POOL, LABELS, Shots(k=3))
    monkeypatch.setattr(demonstrations, "CHUNK", 2)
    assert select(texts, POOL, LABELS, Shots(k=3)) == whole


def test_only_those_with_a_rationale() -> None:
    pool = POOL.assign(rationale=["since it is so" if i % 4 == 0 else None for i in range(30)])
    for selection in ("random", "balanced", "nearest"):
        shots = select(["new 7"], pool, LABELS, Shots(k=6, selection=selection, rationales="given"))[0]
        assert all(each.rationale == ("since it is so",) for each in shots)
    with pytest.raises(UserError, match=r"shots\.source=demo"):
        select(["new 7"], POOL, LABELS, Shots(k=3, rationales="given"))


def test_rationales_can_be_added() -> None:
    selection = demonstrations.select(["a", "b"], POOL, LABELS, Shots(k=3, selection="random"))
    first, *others = selection.used()
    result = selection.with_rationales({first: ("because",)})
    assert {each.rationale for each in result.of(1)} == {("because",), None}
    assert len(others) == 2

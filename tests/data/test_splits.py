"""Splitting: no text in two splits, test first, draws that stay when something else changes."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from findistill.data.config import Data
from findistill.data.labels import LabelSet
from findistill.data.splits import assign
from findistill.data.text_key import text_key
from findistill.errors import UserError

LABELS = LabelSet(("negative", "neutral", "positive"))


def table(rows: list[tuple[str, str | None, str | None]]) -> pd.DataFrame:
    """(text, label, the source's split) in canonical columns."""
    texts, labels, splits = zip(*rows, strict=True) if rows else ((), (), ())
    ids = [f"t/{row}" for row in range(len(rows))]
    columns = {"id": ids, "text": texts, "label": labels, "split": splits}
    return pd.DataFrame(columns, dtype=object).assign(date=None, source="t")


def settings_(**changes: Any) -> Data:
    return Data(_target_="findistill.data.sources.csv.read", name="t", **changes)


def many(n: int = 100) -> list[tuple[str, str | None, str | None]]:
    """60% neutral, 25% positive, 15% negative."""
    names = ["neutral"] * 12 + ["positive"] * 5 + ["negative"] * 3
    return [(f"text number {row}", names[row % 20], None) for row in range(n)]


def ids(frame: pd.DataFrame, split: str) -> list[str]:
    return frame.loc[frame["split"] == split, "id"].tolist()


spelling = st.sampled_from(["{}", "{}!", " {} ", "THE {}", "the {}", "{} https://t.co/x", "{}..."])
text = st.builds(str.format, spelling, st.sampled_from([*"abcdefghij", "", "🚀", "é"]))
row = st.tuples(text, st.sampled_from(LABELS.names), st.sampled_from([None, None, "train", "validation", "test", "pool"]))


@given(st.lists(row, min_size=1, max_size=60), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_no_text_is_in_two_splits_and_every_row_is_accounted_for(rows: list[tuple], seed: int) -> None:
    try:
        frame, removed = assign(table(rows), settings_(seed=seed), LABELS)
    except UserError:  # all blank, or one class left to train on
        return
    keys = frame["text"].map(text_key)
    assert keys.is_unique
    assert frame["split"].isin(["train", "validation", "test", "pool"]).all()
    assert len(frame) + sum(removed.values()) == len(rows)


@given(st.lists(row, min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_test_rows_do_not_depend_on_any_other_split(rows: list[tuple]) -> None:
    test_only = [row for row in rows if row[2] == "test"]
    if not any(row[0].strip() for row in test_only):
        return
    try:
        frame, _ = assign(table(rows), settings_(), LABELS)
    except UserError:
        return
    alone, _ = assign(table(test_only), settings_(), LABELS)
    assert frame.loc[frame["split"] == "test", "text"].tolist() == alone["text"].tolist()


def test_shares_are_stratified_and_in_the_order_of_the_source() -> None:
    frame, _ = assign(table(many()), settings_(labelled=18), LABELS)
    counts = frame.groupby("split")["label"].value_counts().unstack()
    assert counts.loc["test"].to_dict() == {"neutral": 12, "positive": 5, "negative": 3}
    assert counts.loc["validation"].sum() == 8 and counts.loc["pool"].sum() == 18
    assert counts.loc["train"].sum() == 54
    for split in ("train", "validation", "test", "pool"):
        rows = [int(name.split("/")[1]) for name in ids(frame, split)]
        assert rows == sorted(rows)


def test_draws_do_not_touch_each_other() -> None:
    plain, _ = assign(table(many()), settings_(), LABELS)
    pooled, _ = assign(table(many()), settings_(labelled=20), LABELS)
    limited, removed = assign(table(many()), settings_(labelled=20, limit=10), LABELS)
    larger, _ = assign(table(many()), settings_(labelled=20, limit=30), LABELS)
    for other in (pooled, limited):
        assert ids(other, "test") == ids(plain, "test") and ids(other, "validation") == ids(plain, "validation")
    assert ids(limited, "pool") == ids(pooled, "pool")
    assert len(ids(limited, "train")) == 10 and removed["over data.limit"] == len(ids(pooled, "train")) - 10
    assert set(ids(limited, "train")) < set(ids(larger, "train")) < set(ids(pooled, "train"))
    other_seed, _ = assign(table(many()), settings_(seed=1), LABELS)
    assert ids(other_seed, "test") != ids(plain, "test")


def test_the_draw_of_labelled_rows_has_a_seed_of_its_own() -> None:
    frames = [assign(table(many()), settings_(labelled=20, labelled_seed=seed), LABELS)[0] for seed in (None, 0, 1)]
    ids = [{split: set(frame.loc[frame["split"] == split, "id"]) for split in ("test", "validation", "pool")} for frame in frames]
    assert ids[0] == ids[1]  # as `seed`
    assert ids[2]["pool"] != ids[1]["pool"] and len(ids[2]["pool"]) == 20
    assert all(ids[2][split] == ids[1][split] for split in ("test", "validation"))


def test_a_text_with_two_labels_is_dropped_unless_test_has_it() -> None:
    rows = [*many(), ("Same text", "neutral", None), ("same text!", "positive", None)]
    frame, removed = assign(table(rows), settings_(), LABELS)
    assert not frame["text"].str.contains("ame text").any()
    assert removed["duplicates with different labels"] == 2

    rows = [("Same text", "neutral", "test"), ("same text!", "positive", "train"), *many()]
    frame, removed = assign(table(rows), settings_(), LABELS)
    assert ids(frame, "test") == ["t/0"]
    assert "t/1" not in frame["id"].tolist() and removed["also in an earlier split"] == 1


def test_the_sources_own_validation_loses_test_texts_and_train_loses_both() -> None:
    rows = [("a", "neutral", "test"), ("A.", "neutral", "validation"), ("b", "neutral", "validation")]
    rows += [
        ("a!", "neutral", "train"),
        ("B", "neutral", "train"),
        ("c", "neutral", "train"),
        ("d", "positive", "train"),
    ]
    frame, _ = assign(table(rows), settings_(), LABELS)
    assert dict(zip(frame["text"], frame["split"], strict=True)) == {
        "c": "train",
        "d": "train",
        "b": "validation",
        "a": "test",
    }


def test_unlabelled_texts_all_stay_in_train() -> None:
    frame, _ = assign(table([(f"text {n}", None, None) for n in range(20)]), settings_(limit=5), LABELS)
    assert frame["split"].tolist() == ["train"] * 5 and frame["label"].isna().all()


def test_all_labels_may_be_the_pool_where_there_are_other_texts_to_label() -> None:
    texts = [*many(40), *((f"another text {row}", None, None) for row in range(10))]
    assign(table(texts), settings_(test=0.5, labelled=17), LABELS)  # the one label that is left need not be two classes
    frame, _ = assign(table(texts), settings_(test=0.5, labelled=18), LABELS)
    assert frame["split"].value_counts().to_dict() == {"test": 20, "pool": 18, "train": 10, "validation": 2}
    assert frame.loc[frame["split"] == "train", "label"].isna().all()
    with pytest.raises(UserError, match=r"18 labelled rows beside test and validation.*data.labelled=18 at most"):
        assign(table(texts), settings_(test=0.5, labelled=19), LABELS)


@pytest.mark.parametrize("labelled", [0, 40])
def test_folds_of_the_labelled_rows_are_test_splits_in_turn(labelled: int) -> None:
    """Every labelled row that may be learnt from is in one fold; the source's own test and validation rows are in none."""
    texts = table([*many(), *((f"another text {row}", None, None) for row in range(10))])
    whole, _ = assign(texts, settings_(labelled=labelled), LABELS)
    known = set(whole.loc[(whole["split"] == ("pool" if labelled else "train")) & whole["label"].notna(), "id"])
    tested: list[str] = []
    for fold in range(3):
        frame, removed = assign(texts, settings_(labelled=labelled, fold=fold, folds=3), LABELS)
        assert removed["test rows that are no part of a fold"] == 20 and ids(frame, "validation") == ids(whole, "validation")
        test = frame[frame["split"] == "test"]
        assert 0.5 < (test["label"] == "neutral").mean() < 0.7
        assert not {*ids(frame, "train"), *ids(frame, "pool")} & {*test["id"], *ids(whole, "test")}
        tested += test["id"].tolist()
    assert len(tested) == len(known) and set(tested) == known
    with pytest.raises(UserError, match="has only"):
        assign(table(many(20)), settings_(fold=0, folds=15), LABELS)


def test_without_validation_rows_all_others_are_learnt_from() -> None:
    frame, _ = assign(table(many()), settings_(validation=0), LABELS)
    assert frame["split"].value_counts().to_dict() == {"train": 80, "test": 20}


def test_all_rows_may_be_for_testing() -> None:
    frame, _ = assign(table(many()), settings_(test=1), LABELS)
    assert frame["split"].tolist() == ["test"] * 100


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([], {}, "holds no rows"),
        ([(" ", None, None), ("\n", None, None)], {}, r"every text is blank \(2 rows\)"),
        ([(f"text {n}", "neutral", None) for n in range(9)], {}, "have the label 'neutral'"),
        ([("a", "neutral", None), ("b", "positive", None)], {}, "of 2 rows none is left to train on"),
        ([*many(), ("x", "bullish", None)], {}, "unknown label 'bullish'"),
        (many(), {"labelled": 72}, "data.labelled=72 leaves nothing to train on"),
        ([("x", None, None)], {"labelled": 5}, "data.labelled=5: data=t has no labels to keep"),
    ],
)
def test_what_cannot_be_split_is_refused(rows: list, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assign(table(rows), settings_(**changes), LABELS)

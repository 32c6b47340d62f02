"""Splitting: no text in two splits, test first, draws that do not change with other settings."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from findistill.data.config import Data
from findistill.data.date_periods import periods_of
from findistill.data.labels import LabelSet
from findistill.data.splits import assign
from findistill.data.text_key import text_key
from findistill.errors import UserError

LABELS = LabelSet(("negative", "neutral", "positive"))


def table(rows: list[tuple[str, str | None, str | None]]) -> pd.DataFrame:
    """Rows of (text, label, the source's split) in canonical columns."""
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
    except UserError:  # all texts are blank, or only one class is left to train on
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
    assert ids[0] == ids[1]  # None means the value of `seed`
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
    assign(table(texts), settings_(test=0.5, labelled=17), LABELS)  # the one label left over need not cover two classes
    frame, _ = assign(table(texts), settings_(test=0.5, labelled=18), LABELS)
    assert frame["split"].value_counts().to_dict() == {"test": 20, "pool": 18, "train": 10, "validation": 2}
    assert frame.loc[frame["split"] == "train", "label"].isna().all()
    with pytest.raises(UserError, match=r"18 labelled rows outside test and validation.*data.labelled=18 at most"):
        assign(table(texts), settings_(test=0.5, labelled=19), LABELS)


@pytest.mark.parametrize("labelled", [0, 40])
def test_folds_of_the_labelled_rows_are_test_splits_in_turn(labelled: int) -> None:
    """Every labelled row that may be trained on is in one fold; the source's own test and validation rows are in none."""
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
        ([], {}, "has no rows"),
        ([(" ", None, None), ("\n", None, None)], {}, r"every text is blank \(2 rows\)"),
        ([(f"text {n}", "neutral", None) for n in range(9)], {}, "have the label 'neutral'"),
        ([("a", "neutral", None), ("b", "positive", None)], {}, "none of 2 rows is left to train on"),
        ([*many(), ("x", "bullish", None)], {}, "unknown label 'bullish'"),
        (many(), {"labelled": 72}, "data.labelled=72 leaves nothing to train on"),
        ([("x", None, None)], {"labelled": 5}, "data.labelled=5: data=t has no labels to keep"),
    ],
)
def test_what_cannot_be_split_is_refused(rows: list, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assign(table(rows), settings_(**changes), LABELS)


def entity_table(rows: list[tuple[str, list[tuple[int, int]] | None]], **columns: Any) -> pd.DataFrame:
    """Rows of (text, offsets of its companies)."""
    frame = table([(text, None, None) for text, _ in rows])
    cells = [
        None if spans is None else [{"start": start, "end": end, "label": "company"} for start, end in spans] for _, spans in rows
    ]
    return frame.assign(spans=pd.Series(cells, dtype=object), **columns)


COMPANIES = LabelSet(("company",), fewest=1)


def mentions(n: int = 100) -> list[tuple[str, list[tuple[int, int]] | None]]:
    """Three of four texts name a company."""
    return [(f"Acme {row}", [] if row % 4 == 0 else [(0, 4)]) for row in range(n)]


def test_entity_rows_are_split_by_whether_they_name_one() -> None:
    frame, _ = assign(entity_table(mentions()), settings_(labelled=16), COMPANIES)
    counts = frame.groupby("split")["spans"].agg(lambda cells: (len(cells), sum(map(bool, cells)))).to_dict()
    assert counts == {"test": (20, 15), "validation": (8, 6), "pool": (16, 12), "train": (56, 42)}
    smaller, _ = assign(entity_table(mentions()), settings_(labelled=16, limit=8), COMPANIES)
    assert set(ids(smaller, "train")) < set(ids(frame, "train")) and ids(smaller, "test") == ids(frame, "test")


def test_folds_of_entity_rows_have_each_row_once_and_unannotated_ones_never() -> None:
    rows = [*mentions(), *((f"nobody read {n}", None) for n in range(5))]
    tests = [ids(assign(entity_table(rows), settings_(fold=fold), COMPANIES)[0], "test") for fold in range(5)]
    flat = [name for names in tests for name in names]
    assert len(flat) == len(set(flat)) == 72 and not {f"t/{row}" for row in range(100, 105)} & set(flat)


def test_duplicates_whose_mentions_disagree_are_dropped() -> None:
    rows = [
        ("Acme beats Beta", [(0, 4)]),
        ("ACME beats Beta!", [(0, 4), (11, 15)]),
        ("  Acme rises", [(2, 6)]),
        ("acme rises", [(0, 4)]),
    ]
    frame, removed = assign(entity_table([*mentions(), *rows]), settings_(), COMPANIES)
    texts = set(frame["text"])
    assert not {"Acme beats Beta", "ACME beats Beta!"} & texts and "  Acme rises" in texts
    assert removed["duplicates with different labels"] == 2 and removed["duplicates"] == 1


def test_entities_need_a_mention_to_learn_from() -> None:
    with pytest.raises(UserError, match="none of the 72 training rows mentions any of company"):
        assign(entity_table([(text, []) for text, _ in mentions()]), settings_(), COMPANIES)


PERIODS = ["2010/2016", "2017/2018-06", "2018-07-01/"]


def dated(n: int = 60) -> list[str | None]:
    """Consecutive months from 2015; every tenth row has no date."""
    return [None if row % 10 == 9 else f"{2015 + row // 12}-{row % 12 + 1:02}-15T09:00:00-05:00" for row in range(n)]


def test_rows_are_split_by_their_dates() -> None:
    frame, removed = assign(entity_table(mentions(60), date=dated()), settings_(split_by_date=PERIODS), COMPANIES)
    years = frame.groupby("split")["date"].agg(["min", "max"]).map(lambda date: date[:7])
    assert years.to_dict("index") == {
        "train": {"min": "2015-01", "max": "2016-12"}, "validation": {"min": "2017-01", "max": "2018-06"},
        "test": {"min": "2018-07", "max": "2019-11"},
    }  # fmt: skip
    assert removed["outside data.split_by_date"] == 6


def test_a_text_that_comes_again_later_is_no_training_row_and_later_unlabelled_ones_are_left_out() -> None:
    rows = [*mentions(60), ("acme 59!", [(0, 4)]), ("nobody read this", None), ("nor this", None)]
    dates = ["2016-01-01", *dated()[1:58], "2019-01-01", "2019-01-01", "2015-01-01", "2015-01-01", "2019-01-01"]
    frame, removed = assign(entity_table(rows, date=dates), settings_(split_by_date=["/2017", "2018/2020"]), COMPANIES)
    assert "acme 59!" not in set(frame["text"]) and removed["also in an earlier split"] == 1
    assert frame.set_index("text")["split"].get("nobody read this") == "train" and "nor this" not in set(frame["text"])
    assert removed["without a label, outside the period of training"] == 1


def test_classes_and_unlabelled_texts_are_split_by_date_too() -> None:
    frame, _ = assign(table(many(60)).assign(date=dated()), settings_(split_by_date=["/2016", "2017/"]), LABELS)
    assert frame.loc[frame["split"] == "test", "date"].min()[:4] == "2017"
    frame, _ = assign(
        table([(f"t {n}", None, None) for n in range(60)]).assign(date=dated()), settings_(split_by_date=PERIODS), LABELS
    )
    assert set(frame["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("periods", "dates", "message"),
    [
        (["2010-2016", "2017/2018"], dated(), "'2010-2016' is not a period such as 2010/2016"),
        (["2016/2010", "2017/2018"], dated(), "ends before it begins"),
        (["2010/2017", "2017/2018"], dated(), "two periods overlap on 2017"),
        (["2010/2017"], dated(), "give the periods of training, validation and test"),
        (["2010/2016", "2017/"], [None] * 60, "has no dates"),
        (["2010/2016", "2017/"], ["31/12/2016"] * 60, "row 1: '31/12/2016' is not a date"),
        (["2010/2016", "2030/"], dated(), "in the test period"),
        (["2001/2002", "2015/"], dated(), "in the train period"),
    ],
)
def test_a_faulty_split_by_date_is_named(periods: list[str], dates: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        assign(table(many(60)).assign(date=pd.Series(dates, dtype=object)), settings_(split_by_date=periods), LABELS)
    assert str(error.value).startswith("data.split_by_date") and "\n" not in str(error.value)


def test_both_ends_of_a_period_are_in_it() -> None:
    dates = ["2015-12-31", "2016-01-01T00:00", "2016-02-29T23:59", "2016-03-01", "2017-05-31", "2017-06-01"]
    splits = periods_of(pd.Series(dates, dtype=object), ["2016-01/2016-02", "2016-03-01/2017-05-31"], "t")
    assert splits.tolist() == [None, "train", "train", "test", "test", None]

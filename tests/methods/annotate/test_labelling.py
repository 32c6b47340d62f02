"""The selection of texts for a person to label next."""

import numpy as np
import pandas as pd

from findistill.methods.annotate.labelling import next_to_label

TEXTS = [
    "Profit rose to a record", "Profit rose to a record.", "Profits rose to new records",  # near-duplicates
    "The board met in Oslo", "Shipping rates fell in Asia", "A new plant opens in May", "Taxes on banks are under debate",
]  # fmt: skip


def votes(gold: list[str | None] | None = None) -> pd.DataFrame:
    ids = [f"t{at}" for at in range(len(TEXTS))]
    return pd.DataFrame({"id": ids, "text": TEXTS, "label": "up", "gold": gold or [None] * len(TEXTS), "agreement": 5})


def shares(*doubts: float) -> np.ndarray:
    return np.array([[1 - doubt, doubt] for doubt in doubts])


def test_the_least_sure_come_first_and_no_near_copies() -> None:
    chosen = next_to_label(votes(), shares(0.5, 0.5, 0.5, 0.4, 0.3, 0.0, 0.2), [], 4)
    assert list(chosen.columns) == ["id", "text", "label", "suggestion", "agreement"]
    assert (chosen["label"] == "").all() and (chosen["suggestion"] == "up").all()
    assert sum(text.startswith("Profit") for text in chosen["text"]) == 1
    assert chosen["id"].iloc[0] in ("t0", "t1", "t2") and {"t3", "t4"} <= set(chosen["id"])
    assert "t5" not in set(chosen["id"])  # all agree


def test_what_is_labelled_is_not_chosen_nor_what_is_like_it() -> None:
    chosen = next_to_label(votes(), shares(*[0.5] * 7), ["profit rose to a record!"], 4)
    assert not set(chosen["id"]) & {"t0", "t1", "t2"}
    gold = ["up", None, None, "up", None, None, None]
    assert not {"t0", "t3"} & set(next_to_label(votes(gold), shares(*[0.5] * 7), [], 7)["id"])


def test_fewer_texts_than_wanted_are_all_given() -> None:
    assert len(next_to_label(votes(), shares(*[0.5] * 7), [], 50)) == 7
    assert len(next_to_label(votes(), shares(*[0.5] * 7), TEXTS, 50)) == 0

"""A data set in its artifact's folder: the frame as Parquet, the card and the labels as JSON."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.core.files import read_json, write_json
from findistill.core.store import Store
from findistill.data.labels import LabelSet
from findistill.data.texts import DataCard, TextData


def write_folder(data: TextData, folder: Path) -> None:
    data.frame.to_parquet(folder / "texts.parquet", index=False)
    write_json(folder / "card.json", {**asdict(data.card), "labels": list(data.labels.names)})


def read_folder(folder: Path) -> TextData:
    frame = pd.read_parquet(folder / "texts.parquet")
    card = read_json(folder / "card.json")
    if "spans" in frame:
        frame["spans"] = pd.Series([None if cell is None else list(cell) for cell in frame["spans"]], frame.index, dtype=object)
    return TextData(frame, LabelSet(tuple(card["labels"]), fewest=1), _card(card))


def read_card(folder: Path) -> DataCard:
    """The data card of a data set's artifact."""
    return _card(read_json(folder / "card.json"))


def _card(content: Mapping[str, Any]) -> DataCard:
    fields = {name: value for name, value in content.items() if name != "labels"}
    return DataCard(**{**fields, "notes": tuple(content["notes"])})


def store_frame(store: Store, kind: str, name: str, frame: pd.DataFrame) -> Path:
    """The store's folder `<kind>-<key>` with this frame in `<name>.parquet`; the key is a hash of its content."""
    rows = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy().tobytes()
    key = {"rows": hashlib.sha256(rows).hexdigest(), "columns": [str(column) for column in frame]}
    return store.get(kind, key, lambda folder: frame.to_parquet(folder / f"{name}.parquet", index=False))

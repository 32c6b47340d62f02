"""What a reader gives: rows with the canonical columns, and the facts of the data card."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from findistill.data.texts import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "pool": "pool",
}


@dataclass(frozen=True)
class Source:
    """What a reader gives: the canonical columns with the source's extra ones, and the facts of the card."""

    rows: "pd.DataFrame"
    origin: str
    licence: str
    citation: str
    labels: tuple[str, ...] | None = None  # where they are not `data.labels`
    notes: list[str] = field(default_factory=list)


def frame_of(**columns: Any) -> "pd.DataFrame":
    """Canonical columns first, those not given None."""
    import pandas as pd

    frame = pd.DataFrame({"id": columns["id"]}, dtype=object)
    for name in COLUMNS[1:]:
        values = columns.get(name)
        every = [values] * len(frame) if values is None or isinstance(values, str) else values
        frame[name] = pd.Series(every, dtype=object)  # pandas' own text type would turn None into NaN
    for name, values in columns.items():
        if name not in frame and values is not None:
            frame[name] = values
    return frame


def joined(parts: "Iterable[pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    frame = pd.concat(list(parts), ignore_index=True)
    return frame.astype(dict.fromkeys(COLUMNS, object))

"""What a reader returns: rows with the canonical columns, and the facts for the data card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_SPELLINGS = (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing"), ("pool",))
SPLIT_NAMES = {spelling: names[0] for names in _SPELLINGS for spelling in names}


@dataclass(frozen=True)
class Source:
    """What a reader returns.

    Attributes:
        rows: one mapping per row, with `id`, `text` and, if the source has them, `label`, `split`, `date` and `source`; other
            keys become columns, too. With `spans` it is a data set of entities (`TextData`).
        origin: the folder, file or hub id that was read.
        labels: the label names, if they are not `data.labels`.
        notes: lines for the data card.
    """

    rows: Sequence[Mapping[str, Any]]
    origin: str
    licence: str
    citation: str
    labels: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)

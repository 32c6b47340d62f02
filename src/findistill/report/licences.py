"""The licence under which something made from several sources may be published: the strictest of theirs.

Their order is in `licences.yaml`. It is a rule of thumb for a card, not legal advice: the card names every source.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """Something that a model or annotations were made from.

    Attributes:
        role: `texts`, `demonstrations`, `annotator`, `weights` or `annotations`.
        name: of the data set or model, as shown to users.
        licence: as its reader, card or publisher states it.
        hub_id: if it is on the hub.
        citation: of a data set.
    """

    role: str
    name: str
    licence: str
    hub_id: str | None = None
    citation: str = ""


@dataclass
class Provenance:
    """What a model or annotations were made from.

    Attributes:
        sources: data sets, annotators and weights, each once.
        datasets: hub ids of the data sets, those of the models' cards included.
        notes: of the data cards: near-duplicates of test rows, texts that were cut or dropped.
        usd: cost of annotation in US dollars; None if a price is not known, 0.0 if nothing was charged.
        seconds: that each kind of intermediate artifact took.
    """

    sources: list[Source] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usd: float | None = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Licence:
    """A licence as named on the hub. `rank`: the higher, the stricter; `texts`: whether the texts may be passed on."""

    id: str
    rank: int
    name: str | None = None
    texts: bool = True

    def metadata(self) -> dict[str, Any]:
        """The fields of a card's header."""
        return {"license": self.id} | ({"license_name": self.name} if self.id == "other" else {})

    @property
    def words(self) -> str:
        return self.name or self.id


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load(files("findistill.report").joinpath("licences.yaml").read_text("utf-8"))
    return table


def licence_of(stated: str) -> Licence:
    """The licence that these words state. With `not stated` anywhere in them, it is unknown; one that is not in the table is
    `other`, with its words as a name, and counts as strict as a provider's terms."""
    words = " ".join(stated.lower().split())
    identifier = re.sub(r"[^a-z0-9.]+", "-", words).strip("-")
    order = _table()["order"]
    if any(word in words for word in order[-1]["words"]) or not identifier:
        return Licence(UNKNOWN, len(order) - 1, texts=False)
    for rank, entry in enumerate(order):
        if identifier in (entry["id"], entry.get("name")) or words in entry.get("words", ()):
            return Licence(entry["id"], rank, entry.get("name"), entry.get("texts", True))
    rank = next(rank for rank, entry in enumerate(order) if entry["id"] == "other")
    return Licence("other", rank, identifier[:60].strip("-"), texts=False)


def model_licence(reference: str) -> str:
    """The licence of a model by its hub id or its provider's name, from `licences.yaml`; `unknown` if it is not there."""
    return next((licence for begin, licence in _table()["models"].items() if reference.startswith(begin)), UNKNOWN)


def strictest(sources: Sequence[Source]) -> Licence:
    """The strictest licence of all; unknown if one of them is, or if there are no sources."""
    return max((licence_of(source.licence) for source in sources), key=lambda one: one.rank, default=licence_of(UNKNOWN))


def remarks(sources: Sequence[Source]) -> list[str]:
    """What a single licence cannot express: sources without a known one, and share-alike terms that exclude each other."""
    unknown = [source.name for source in sources if licence_of(source.licence).id == UNKNOWN]
    lines = [f"the licence of {', '.join(dict.fromkeys(unknown))} is unknown: ask before you publish or sell"] if unknown else []
    alike = sorted({one.id for one in (licence_of(source.licence) for source in sources) if "-sa-" in one.id})
    chosen = strictest(sources).id
    if others := [one for one in alike if one != chosen]:
        lines.append(f"{', '.join(others)} requires derived works to carry the same licence, which {chosen} is not")
    return lines

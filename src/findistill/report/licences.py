"""Under which licence something may be published that was learnt from several sources: the strictest of theirs.

The order stands in `licences.yaml`. It is a rule of thumb for a card, no legal advice: the card names every source.
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
        name: of the data set or model, for people.
        licence: as its reader, card or publisher states it.
        hub_id: where the hub has it.
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
        usd: what annotation was charged, in US dollars; None where a price is not known, 0.0 where nobody charged anything.
        seconds: that each kind of artifact on the way took.
    """

    sources: list[Source] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    usd: float | None = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Licence:
    """A licence as the hub has it. `rank`: the higher, the stricter; `texts`: whether it lets others have the texts."""

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
    """The licence that words stand for. `not stated` anywhere in them makes it unknown; one that is in no table is `other`, with
    its words as a name, and counts as strict as a provider's terms."""
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
    """The licence of a model by its hub id or its provider's name, as `licences.yaml` has it; `unknown` where it does not."""
    return next((licence for begin, licence in _table()["models"].items() if reference.startswith(begin)), UNKNOWN)


def strictest(sources: Sequence[Source]) -> Licence:
    """The strictest licence of all; unknown where nothing is known of any."""
    return max((licence_of(source.licence) for source in sources), key=lambda one: one.rank, default=licence_of(UNKNOWN))


def remarks(sources: Sequence[Source]) -> list[str]:
    """What a single licence cannot say: sources without a known one, and share-alike terms that exclude each other."""
    unknown = [source.name for source in sources if licence_of(source.licence).id == UNKNOWN]
    lines = (
        [f"the licence of {', '.join(dict.fromkeys(unknown))} is not known: ask before you publish or sell"] if unknown else []
    )
    alike = sorted({one.id for one in (licence_of(source.licence) for source in sources) if "-sa-" in one.id})
    chosen = strictest(sources).id
    if others := [one for one in alike if one != chosen]:
        lines.append(f"{', '.join(others)} wants what is made from it under the same licence, which {chosen} is not")
    return lines

"""Published numbers, each with its source, to be shown next to ours and never mixed with them."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from findistill.errors import UserError


@dataclass(frozen=True)
class Source:
    """The source of a number. `second_hand`: reported by others than the authors; `note` says how far to trust it."""

    title: str
    where: str
    second_hand: bool
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One published system on one data set."""

    system: str
    data: str
    values: dict[str, float]  # metric -> value, shares in 0..1
    source: Source
    note: str = ""

    def cell(self, metric: str) -> str:
        """The value as text, at least two decimals; empty if the source has none."""
        value = self.values.get(metric)
        return "" if value is None else max(f"{value:.2f}", f"{value:g}", key=len)


@dataclass(frozen=True)
class Published:
    """The published table of one study."""

    key: str
    title: str
    citation: str
    caution: str
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> list[str]:
        """All metrics that some row has, in order of appearance."""
        return list(dict.fromkeys(metric for row in self.rows for metric in row.values))

    @property
    def sources(self) -> list[Source]:
        """All sources, in order of appearance."""
        return list(dict.fromkeys(row.source for row in self.rows))


def published(key: str) -> Published:
    """The published numbers of one study.

    Raises:
        UserError: `key` is not in published.yaml.
    """
    content: dict[str, Any] = yaml.safe_load(files("findistill.report").joinpath("published.yaml").read_text("utf-8"))
    if key not in content["studies"]:
        names = ", ".join(sorted(content["studies"]))
        raise UserError(f"report.published={key}: no published numbers of that name. Choose one of {names}, or null.")
    study = content["studies"][key]
    sources = {name: Source(**entry) for name, entry in content["sources"].items()}
    rows = tuple(Row(**{**row, "source": sources[row["source"]]}) for row in study["rows"])
    return Published(key, study["title"], study["citation"], study.get("caution", ""), rows)

"""The project's own corpus with its company names, for trying things out: no results are reported on it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from findistill.data import demo
from findistill.data.labels import COMPANY
from findistill.data.rows import Source
from findistill.data.sources import demo as sentiment
from findistill.data.spans import Span, to_cell


@dataclass
class DemoCompaniesData(sentiment.DemoData):
    has_labels: ClassVar[bool] = False
    has_spans: ClassVar[bool] = True

    labels: list[str] | None = field(default_factory=lambda: [COMPANY])


def local_files(config: DemoCompaniesData) -> list[Path]:
    return sentiment.local_files(config)


def read(config: DemoCompaniesData) -> Source:
    """Company names and tickers are mentions; public bodies are not."""
    label = (config.labels or [COMPANY])[0]
    companies = {f"demo/{row['id']}": row["companies"] for row in demo.read_corpus(config.rows)}
    source = sentiment.read(config)
    rows = [
        {name: value for name, value in row.items() if name not in ("label", "rationale")}
        | {"spans": to_cell(Span(start, end, label) for start, end in companies[row["id"]])}
        for row in source.rows
    ]
    return Source(rows, source.origin, source.licence, source.citation, notes=source.notes)

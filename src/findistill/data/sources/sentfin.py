"""SEntFiN 1.0: business headlines, most of them Indian, with the entities named in them (Sinha et al. 2022)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from findistill.data.config import Data
from findistill.data.json_rows import read_jsonl
from findistill.data.labels import COMPANY
from findistill.data.locations import files_in, from_hub
from findistill.data.rows import Source
from findistill.data.spans import locate, to_cell

LICENCE = "MIT"
CITATION = "Sinha, Kedas, Kumar, Malo (2022), SEntFiN 1.0: Entity-aware sentiment analysis for financial news, JASIST 73(9)"
FOLDER = "sentfin"


@dataclass
class SentfinData(Data):
    """Its entities are mostly companies, but also indices, sectors and commodities; all have the type `company`."""

    has_labels: ClassVar[bool] = False
    has_spans: ClassVar[bool] = True

    labels: list[str] | None = field(default_factory=lambda: [COMPANY])


def local_files(config: SentfinData) -> list[Path]:
    return files_in(FOLDER, ["sentfin_part.jsonl"])


def read(config: SentfinData) -> Source:
    """Every mention of an entity's name in its headline is a span.

    A headline that does not literally contain one of its names (some are damaged in the original) counts as not annotated.
    """
    if paths := local_files(config):
        headlines, origin = read_jsonl(paths[0], text_column="title"), str(paths[0].parent)
    else:
        headlines, origin = from_hub(config, FOLDER)["train"].to_list(), f"hub:{config.hub_id}"
    label = (config.labels or [COMPANY])[0]
    rows, missing = [], []
    for number, row in enumerate(headlines):
        title, entities = row["title"], row["entities"]
        located = locate(title, json.loads(entities) if isinstance(entities, str) else [name for name in entities if name], label)
        missing.append(len(located.missing))
        spans = None if located.missing else to_cell(located.spans)
        rows.append({"id": f"sentfin/{row.get('id', number)}", "text": title, "spans": spans, "source": "sentfin"})
    notes = ["entities are companies, but also indices, sectors and commodities"]
    if any(missing):
        count = sum(map(bool, missing))
        notes.append(f"{sum(missing)} names do not occur verbatim in their headline; {count} headlines count as unannotated")
    return Source(rows, origin, LICENCE, CITATION, notes=notes)

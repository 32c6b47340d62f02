"""Dated news headlines, unlabelled, most of them with the ticker they were filed under."""

from dataclasses import dataclass, field
from pathlib import Path

from findistill.data.config import UnlabelledData
from findistill.data.delimited import read_csv
from findistill.data.locations import csv_files, unavailable
from findistill.data.rows import Source

LICENCE = "mixed: benzinga listed as CC0, fnspid CC BY-NC 4.0, others not stated"
CITATION = "Benzinga, Nasdaq (FNSPID, Dong, Fan, Peng 2024), CNBC, Guardian and Reuters headlines"
FOLDERS = ("ticker_headlines", "media_headlines")


@dataclass
class HeadlinesData(UnlabelledData):
    files: list[str] = field(
        default_factory=lambda: ["benzinga_2009_2020", "stocknews_2019_2021", "fnspid_sample", "cnbc", "guardian", "reuters"]
    )


def local_files(config: HeadlinesData) -> list[Path]:
    return csv_files(config.files, *FOLDERS)


def read(config: HeadlinesData) -> Source:
    paths = local_files(config) or unavailable(config, " and ".join(FOLDERS))
    rows = [
        {"id": f"headlines/{path.stem}/{number}", "text": row["headline"], "date": row["date"].replace(" ", "T", 1) or None,
         "source": f"headlines/{path.stem}", "ticker": row.get("ticker")}
        for path in paths
        for number, row in enumerate(read_csv(path))
    ]  # fmt: skip
    return Source(rows, str(paths[0].parent.parent), LICENCE, CITATION)

"""StockTwits messages of 2020, marked bullish or bearish by their authors (Lee et al. 2023)."""

from pathlib import Path

from findistill.data.config import Data
from findistill.data.delimited import read_csv
from findistill.data.locations import files_in, unavailable
from findistill.data.rows import Source

NAMES = {"bullish": "positive", "bearish": "negative"}
LICENCE = "not stated (StockTwits terms)"
CITATION = "Lee, Youn, Poon, Han (2023), StockEmotions, AAAI Bridge, arXiv:2301.09279"
FOLDER = "stockemotions"


def local_files(config: Data) -> list[Path]:
    return files_in(FOLDER, [f"{split}_stockemo.csv" for split in ("train", "val", "test")])


def read(config: Data) -> Source:
    paths = local_files(config) or unavailable(config, FOLDER)
    parts = dict(zip(("train", "validation", "test"), map(read_csv, paths), strict=True))
    rows = [
        {"id": f"stockemotions/{row['id']}", "text": row["original"], "label": NAMES[row["senti_label"]], "split": split,
         "date": row["date"], "source": "stockemotions", "ticker": row["ticker"], "emotion": row["emo_label"]}
        for split, part in parts.items()
        for row in part
    ]  # fmt: skip
    return Source(rows, str(paths[0].parent), LICENCE, CITATION)

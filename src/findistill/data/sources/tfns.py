"""Twitter financial news sentiment. The published validation file serves as the test split, as is usual."""

from pathlib import Path

from findistill.data.config import Data
from findistill.data.delimited import read_csv
from findistill.data.locations import files_in, from_hub
from findistill.data.rows import Source

NAMES = {"0": "negative", "1": "positive", "2": "neutral"}
FOLDER = "twitter_financial_news"


def local_files(config: Data) -> list[Path]:
    return files_in(FOLDER, ["sent_train.csv", "sent_valid.csv"])


def read(config: Data) -> Source:
    if paths := local_files(config):
        parts, origin = dict(zip(("train", "test"), map(read_csv, paths), strict=True)), str(paths[0].parent)
    else:
        hub_parts, origin = from_hub(config, FOLDER), f"hub:{config.hub_id}"
        parts = {"train": hub_parts["train"].to_list(), "test": hub_parts["validation"].to_list()}
    rows = [
        {"id": f"tfns/{split}/{number}", "text": row["text"], "label": NAMES[str(row["label"])], "split": split, "source": "tfns"}
        for split, part in parts.items()
        for number, row in enumerate(part)
    ]
    return Source(rows, origin, "MIT", "zeroshot/twitter-financial-news-sentiment, Hugging Face hub")

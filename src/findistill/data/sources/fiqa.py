"""FiQA 2018 task 1: news headlines or posts with a score in [-1, 1] for each company they are about (Maia et al. 2018)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from findistill.config.fields import setting
from findistill.data.config import Data
from findistill.data.locations import files_in, from_hub
from findistill.data.rows import SPLIT_NAMES, Source

LICENCE = "not stated (challenge data, research use)"
CITATION = "Maia et al. (2018), WWW'18 Open Challenge: Financial Opinion Mining and Question Answering"
FOLDER = "fiqa2018"
Text = tuple[str, str, str, list[float]]  # id, split, text, one score per target


@dataclass
class FiqaData(Data):
    has_scores: ClassVar[bool] = True

    part: str = setting(MISSING, choices=("news", "posts"))
    classes: int = setting(3, choices=(2, 3))  # 3, or 2: zero scores and texts on several targets dropped, as in the Reddit study
    threshold: float = 0.1  # three classes: |score| at or below it is neutral


def local_files(config: FiqaData) -> list[Path]:
    kind = "headline" if config.part == "news" else "post"
    return files_in(FOLDER, [f"task1_{kind}_ABSA_{split}.json" for split in ("train", "test")])


def read(config: FiqaData) -> Source:
    """`score` is the mean over a text's targets, `targets` their number. Three classes: |score| <= threshold is neutral.

    Two classes, as in the Reddit study (Deng et al. 2022): the sign; zero scores and texts on several targets dropped.
    """
    origin, texts = _texts(config)
    rows: list[dict[str, Any]] = []
    threshold = config.threshold if config.classes == 3 else 0.0
    for name, split, text, scores in texts:
        score = sum(scores) / len(scores)
        if config.classes == 3 or (score != 0 and len(scores) == 1):
            label = "positive" if score > threshold else "negative" if score < -threshold else "neutral"
            rows.append(
                {"id": f"{config.name}/{name}", "text": text, "label": label, "split": split, "source": config.name,
                 "score": score, "targets": len(scores)}
            )  # fmt: skip
    note = f"{sum(len(scores) > 1 for *_, scores in texts)} texts have several targets: their score is the mean"
    if config.classes == 2:
        note = f"{len(texts) - len(rows)} texts with a zero score or several targets dropped"
    labels = ("negative", "positive") if config.classes == 2 else None
    return Source(rows, origin, LICENCE, CITATION, labels, [note])


def _texts(config: FiqaData) -> tuple[str, list[Text]]:
    """The origin, and one entry per text.

    The hub's copy has one row per target and was split anew by row: a text with any row in the test split is a test text.
    """
    if paths := local_files(config):
        entries = [
            (split, key, entry)
            for split, path in zip(("train", "test"), paths, strict=True)
            for key, entry in json.loads(path.read_text("utf-8")).items()
        ]
        return str(paths[0].parent), [
            (f"{split}/{key}", split, entry["sentence"], [float(target["sentiment_score"]) for target in entry["info"]])
            for split, key, entry in entries
        ]
    kind = "headline" if config.part == "news" else "post"
    texts: dict[str, Text] = {}
    for split, part in from_hub(config, FOLDER).items():
        for row in part:
            if row["type"] == kind:
                home, text = SPLIT_NAMES[split], row["sentence"]
                name, before, _, scores = texts.get(text, (f"{split}/{row['_id']}", home, text, []))
                texts[text] = (name, "test" if before == "test" else home, text, [*scores, float(row["score"])])
    return f"hub:{config.hub_id}", list(texts.values())

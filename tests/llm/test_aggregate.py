import json
import random
from pathlib import Path

import pandas as pd
import pytest

from findistill.core.files import write_json
from findistill.data.labels import LabelSet
from findistill.llm.aggregate import aggregate
from findistill.llm.votes import Votes

LABELS = LabelSet(("negative", "neutral", "positive"))
Said = list[list[str | None]]


def artifact(folder: Path, said: Said, gold: list[str] | None = None) -> Path:
    """What `annotate` leaves for these answers, one list a text."""
    rows, lines = [], []
    for number, answers in enumerate(said):
        votes = Votes.from_labels(answers)
        soft = {f"soft_{name}": share for name, share in zip(LABELS.names, votes.soft(LABELS.names), strict=True)}
        rows.append(
            {"id": f"t{number}", "text": f"text {number}", "label": votes.hard, "gold": gold[number] if gold else None,
             "agreement": votes.agreement, "n_valid": votes.n_valid, "n_samples": votes.n_samples, **soft,
             "rationale": f"{folder.name} says {votes.hard}", "confidence": None}
        )  # fmt: skip
        lines += [json.dumps({"id": f"t{number}", "sample": at, "label": label}) for at, label in enumerate(answers)]
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "annotations.parquet")
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    write_json(folder / "summary.json", {"texts": len(said), "samples": len(lines), "tokens_in": 5, "cost_usd": 0.5})
    return folder


def combined(folders: list[Path], how: str, tmp_path: Path) -> pd.DataFrame:
    folder = tmp_path / how
    folder.mkdir()
    aggregate(folders, [each.name for each in folders], LABELS, how, folder)
    return pd.read_parquet(folder / "annotations.parquet")


def test_majority_counts_every_answer(tmp_path: Path) -> None:
    one = artifact(tmp_path / "one", [["positive", "positive", "neutral"], [None, None, None], ["neutral", "neutral", "neutral"]])
    two = artifact(
        tmp_path / "two", [["neutral", "neutral", "neutral"], [None, None, None], ["positive", "positive", "positive"]]
    )
    frame = combined([one, two], "majority", tmp_path)
    assert frame["label"].isna().tolist() == [False, True, False]
    assert frame["label"][0] == "neutral" and frame["label"][2] == "neutral"  # a tie goes to the first annotator
    assert frame["agreement"].tolist() == [4, 0, 3] and frame["n_samples"].tolist() == [6, 6, 6] and frame["n_valid"][1] == 0
    assert frame.loc[0, ["soft_negative", "soft_neutral", "soft_positive"]].tolist() == pytest.approx([0, 4 / 6, 2 / 6])
    assert frame["rationale"][0] == "two says neutral"
    assert list(frame.columns) == list(pd.read_parquet(one / "annotations.parquet").columns)
    assert len((tmp_path / "majority" / "samples.jsonl").read_text().splitlines()) == 18
    assert json.loads((tmp_path / "majority" / "summary.json").read_text()) == {
        "texts": 3, "samples": 18, "tokens_in": 10, "cost_usd": 1.0,
    }  # fmt: skip


def test_dawid_skene_finds_out_who_can_be_trusted(tmp_path: Path) -> None:
    draw = random.Random(0)
    gold = [draw.choice(LABELS.names) for _ in range(300)]

    def annotator(name: str, accuracy: float) -> Path:
        said = [label if draw.random() < accuracy else draw.choice([x for x in LABELS.names if x != label]) for label in gold]
        return artifact(tmp_path / name, [[label] for label in said], gold)

    folders = [annotator("good", 0.9), annotator("fair", 0.8), *(annotator(f"weak{at}", 0.4) for at in range(3))]
    right = {how: (combined(folders, how, tmp_path)["label"] == gold).mean() for how in ("majority", "dawid_skene")}
    assert right["dawid_skene"] > max(right["majority"] + 0.1, 0.84), right
    frame = pd.read_parquet(tmp_path / "dawid_skene" / "annotations.parquet")
    assert frame[["soft_negative", "soft_neutral", "soft_positive"]].sum(axis=1).tolist() == pytest.approx([1] * 300)
    assert frame["agreement"].between(0, 5).all()

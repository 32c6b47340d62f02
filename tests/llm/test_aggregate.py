import json
import random
from pathlib import Path

import pandas as pd
import pytest

from findistill.core.files import write_json
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.aggregate import aggregate
from findistill.llm.votes import Votes

LABELS = LabelSet(("negative", "neutral", "positive"))
Answers = list[list[str | None]]


def artifact(folder: Path, answers_by_text: Answers, gold: list[str] | None = None) -> Path:
    """The artifact that `annotate` writes for these answers, one list per text."""
    rows, lines = [], []
    for number, answers in enumerate(answers_by_text):
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
    write_json(folder / "summary.json", {"texts": len(answers_by_text), "samples": len(lines), "tokens_in": 5, "cost_usd": 0.5})
    return folder


def combined(folders: list[Path], how: str, tmp_path: Path, labelled: list[Path] = []) -> pd.DataFrame:  # noqa: B006
    folder = tmp_path / how
    folder.mkdir()
    aggregate(folders, [each.name for each in folders], LABELS, how, folder, labelled)
    return pd.read_parquet(folder / "annotations.parquet")


def test_majority_counts_every_answer(tmp_path: Path) -> None:
    one = artifact(tmp_path / "one", [["positive", "positive", "neutral"], [None, None, None], ["neutral", "neutral", "neutral"]])
    two = artifact(
        tmp_path / "two", [["neutral", "neutral", "neutral"], [None, None, None], ["positive", "positive", "positive"]]
    )
    frame = combined([one, two], "majority", tmp_path)
    assert frame["label"].isna().tolist() == [False, True, False]
    assert frame["label"][0] == "neutral" and frame["label"][2] == "neutral"  # a tie: the first annotator's label
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    assert combined([two, one], "majority", swapped)["label"].tolist()[::2] == ["neutral", "positive"]
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
        labels = [label if draw.random() < accuracy else draw.choice([x for x in LABELS.names if x != label]) for label in gold]
        return artifact(tmp_path / name, [[label] for label in labels], gold)

    # The good annotators come last, because ties go to the first.
    folders = [*(annotator(f"weak{at}", 0.4) for at in range(3)), annotator("fair", 0.8), annotator("good", 0.9)]
    right = {how: (combined(folders, how, tmp_path)["label"] == gold).mean() for how in ("majority", "dawid_skene")}
    assert right["dawid_skene"] > max(right["majority"] + 0.1, 0.84), right
    frame = pd.read_parquet(tmp_path / "dawid_skene" / "annotations.parquet")
    assert frame[["soft_negative", "soft_neutral", "soft_positive"]].sum(axis=1).tolist() == pytest.approx([1] * 300)
    assert frame["agreement"].between(0, 5).all()


def crowd(tmp_path: Path, n: int, labelled: int) -> tuple[list[str], list[Path], list[Path]]:
    """Gold labels; five annotators' artifacts for them and for labelled rows: a good, a poor and its copies, a perverse one."""
    draw = random.Random(1)
    gold = [draw.choice(LABELS.names) for _ in range(n + labelled)]

    def others(label: str) -> str:
        return draw.choice([name for name in LABELS.names if name != label])

    good = [label if draw.random() < 0.8 else others(label) for label in gold]
    poor = [label if draw.random() < 0.5 else others(label) for label in gold]
    copies = [[label if draw.random() < 0.9 else others(label) for label in poor] for _ in range(2)]
    # Almost always wrong, but in a consistent way: as informative as a good annotator once its confusion is learnt.
    perverse = [LABELS.names[(LABELS.index(label) + 1) % 3] if draw.random() < 0.9 else label for label in gold]
    folders, measured = [], []
    for number, votes in enumerate([good, poor, *copies, perverse]):
        folders.append(artifact(tmp_path / f"a{number}", [[label] for label in votes[:n]], gold[:n]))
        measured.append(artifact(tmp_path / f"m{number}", [[label] for label in votes[n:]], gold[n:]))
    return gold[:n], folders, measured


def test_labelled_rows_say_whom_to_believe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gold, folders, measured = crowd(tmp_path, 600, 100)
    ways = ("majority", "dawid_skene", "weighted_majority", "stacking")
    frames = {how: combined(folders, how, tmp_path, measured if how in ways[2:] else []) for how in ways}
    right = {how: (frame["label"] == gold).mean() for how, frame in frames.items()}
    assert right["weighted_majority"] > right["majority"] + 0.2 and right["weighted_majority"] > 0.75, right
    assert right["stacking"] > 0.88 > max(right["majority"], right["dawid_skene"], right["weighted_majority"]), right
    for how in ways[2:]:
        soft = frames[how][["soft_negative", "soft_neutral", "soft_positive"]]
        assert soft.sum(axis=1).tolist() == pytest.approx([1] * 600) and frames[how]["agreement"].between(0, 5).all()
        quality = json.loads((tmp_path / how / "summary.json").read_text())["accuracies"]
        assert quality["a0"] == pytest.approx(0.8, abs=0.1) and quality["a4"] < 0.2
    assert "accuracy on 100 labelled rows: a0 0." in caplog.text


def test_a_text_that_nobody_labelled_has_no_label_in_any_way(tmp_path: Path) -> None:
    answers: Answers = [["positive"], [None], ["negative"]] + [["positive"], ["negative"]] * 15
    gold = ["positive", "neutral", "negative"] + ["positive", "negative"] * 15
    folders = [artifact(tmp_path / name, answers, gold) for name in ("a", "b", "c")]
    for how in ("weighted_majority", "stacking"):
        frame = combined(folders, how, tmp_path, folders)
        assert frame["label"].fillna("none").tolist()[:3] == ["positive", "none", "negative"]
        assert frame.loc[1, ["soft_negative", "soft_neutral", "soft_positive"]].tolist() == [0, 0, 0]


def test_stacking_takes_labelled_rows(tmp_path: Path) -> None:
    folders = [artifact(tmp_path / name, [["positive"], ["negative"]], ["positive", "negative"]) for name in ("a", "b")]
    with pytest.raises(UserError, match=r"needs 20 or more labelled rows .* there are 2 rows and 2 labels"):
        combined(folders, "stacking", tmp_path, folders)

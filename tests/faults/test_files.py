"""Faulty user files and folders that are not models: reported with file, row and value; the job counts as failed."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.faults.conftest import CSV, OWN, ROWS, SMALL, Application, assert_nothing_half_written, states

SPLIT = "text,label,part\n" + "".join(
    f"{text},{label},{['train', 'train', 'test'][n // 3 % 3]}\n" for n, (text, label) in enumerate(ROWS)
)
LEAKY = SPLIT + "company 6 tells of a LOSS in 1956!,negative,train\n ,neutral,train\n"

# The content of the file, the overrides of the command, and what the message must contain.
NAMES = "data.labels=[negative,neutral,positive]"  # if unset, the labels are those in the rows
FAULTS = {
    "missing column": (CSV, "data.text_column=headline", ["mine.csv has no column 'headline' (data.text_column)", "text, label"]),
    "missing label column": (CSV, "data.label_column=mood", ["mine.csv has no column 'mood' (data.label_column)"]),
    "unknown label": (CSV + "a,bullish\n", NAMES, ["row 61: label='bullish' is not one of", "label_map={bullish: negative}"]),
    "unknown name in label_map": (CSV, f"{NAMES} data.label_map={{up:good}}", ["data.label_map.up=good: not one of data.labels"]),
    "all texts empty": ("text,label\n,neutral\n ,positive\n", "", ["mine.csv: every value of the column 'text' is blank"]),
    "header only": ("text,label\n", "", ["mine.csv: no rows"]),
    "zero bytes": ("", "", ["mine.csv: the file is empty"]),
    "not UTF-8": (
        (CSV + "café,neutral\n").encode("latin-1"), "", ["mine.csv, line 62, byte", "is not utf-8; set data.encoding=cp1252"],
    ),
    "one class only": (re.sub("positive|negative", "neutral", CSV), "", ["the label 'neutral'", "data.label_column"]),
    "comma in a text": (CSV + "up, and up,positive\n", "", ["mine.csv, line 62: 3 cells where the header has 2"]),
    "unknown split": (
        SPLIT.replace("test", "holdout"), "data.split_column=part", ["mine.csv, row 7: part='holdout' is not a split"],
    ),
    "repeated id": (CSV, "data.id_column=label", ["mine.csv, row 4: the id 'negative' is also in row 1"]),
    "test text in the training pool": (
        LEAKY, "data.split_column=part",
        ["mine.csv: the text of row 7 (test) is also in row 61 (train)", "1 of 62 rows", "data.on_leak=drop"],
    ),
    "nothing left to train on": (CSV, "data.labelled=1000", ["data.labelled=1000 leaves nothing to train on"]),
    "no such model": (CSV, "teacher.model=nowhere/at-all", ["nowhere/at-all", "cannot be loaded", "a folder"]),
    "no such layer": (CSV, "teacher.layers=[9]", ["layers=[9]", "1 to 2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_place(name: str, application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    content, more, words = FAULTS[name]
    (tmp_path / "mine.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    application(*teacher, *more.split()).is_mistake(*words)
    assert list(states(tmp_path / "runs").values()) == ["failed"]
    assert_nothing_half_written(tmp_path / "runs")


def test_a_device_is_checked_before_anything_runs(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    application(*teacher, "trainer.devices=0").is_mistake("trainer.devices=0: give a number of devices")
    assert not (tmp_path / "runs").exists()


def test_a_test_text_inside_the_training_rows_can_be_dropped(
    application: Application, teacher: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text(LEAKY)
    assert application(*teacher, "data.split_column=part", "data.on_leak=drop").code == 0
    [card] = tmp_path.glob("runs/.artifacts/data-*/card.json")
    removed = json.loads(card.read_text())["removed"]
    assert removed["also in an earlier split"] == 1 and removed["blank texts"] == 1
    [predictions] = tmp_path.glob("runs/default/teacher-*/predictions.parquet")
    assert "mine/6" in pd.read_parquet(predictions)["id"].tolist()


def test_a_model_that_is_none(application: Application, teacher: tuple[str, ...], tiny: Path) -> None:
    evaluate = ("stage=evaluate", *OWN, *SMALL)
    application(*evaluate, "evaluate.model=runs").is_mistake("the model runs has no weights")
    application(*evaluate, f"evaluate.model={tiny}").is_mistake(
        str(tiny), "BertModel", "has no classification head", "stage=teacher"
    )


DAMAGE = {
    "model.safetensors": "model.safetensors is truncated or damaged",
    "config.json": "config.json cannot be read",
    "tokenizer.json": "tokenizer.json is truncated or damaged",
}
USES = {
    "scored": ("stage=evaluate", "evaluate.model={}"),
    "trained": ("stage=teacher", "teacher={}"),
    "a student": ("stage=student", "distill=cls", "student={}", "shots.k=0"),
    "learnt from": ("stage=student", "distill=logit", "distill.teacher={}", "shots.k=0"),
}


@pytest.fixture
def trained(application: Application, teacher: tuple[str, ...], tmp_path: Path) -> Path:
    """The model of a completed job."""
    assert application(*teacher, "study=parents").code == 0
    return next(tmp_path.glob("runs/parents/teacher-*/model"))


@pytest.mark.parametrize("name", DAMAGE)
def test_half_a_model(application: Application, trained: Path, name: str) -> None:
    """Refused in every use, before anything is paid for."""
    folder = trained.rename("half")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    for settings in USES.values() if name == "tokenizer.json" else [USES["scored"]]:
        command = [setting.format("./half") for setting in settings]
        application(*command, *OWN, *SMALL).is_mistake("half", DAMAGE[name])


def test_a_model_that_is_not_as_its_job_wrote_it(application: Application, trained: Path) -> None:
    weights = trained / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    for folder, settings in ((trained, USES["trained"]), (trained.parent, USES["scored"])):
        command = [setting.format(folder) for setting in settings]
        application(*command, *OWN, *SMALL).is_mistake("model/model.safetensors has changed since its job wrote it", "again")

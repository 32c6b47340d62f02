"""Annotations exported as a data set: its content and licence, and that plain `datasets` reads it."""

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from findistill.config.validate import validate
from findistill.core import job as jobs
from findistill.core.files import write_json
from findistill.errors import UserError
from findistill.methods.export.publish import publish
from findistill.methods.stage import stage_of
from tests.fixtures.composing import composed
from tests.fixtures.studies import SECRET, write_annotation
from tests.methods.cards import valid_dataset_card

ANSWERS = [["positive"] * 3, ["negative", "negative", "neutral"], [None, None, None], ["neutral", "neutral", "neutral"]]
GOLD = ["positive", "neutral", None, "neutral"]
PROMPT = composed().prompt


def artifact(root: Path, licence: str, *, key: str = "k", llm: dict[str, Any] | None = None, hub: str | None = "o/texts") -> Path:
    """An annotation artifact of four texts in the store `root`, with its source data set."""
    data = root / "data-d"
    write_json(data / "artifact.json", {"key": {"settings": {"hub_id": hub}}})
    card = {"name": "made_up", "licence": licence, "citation": "Nobody (2026)", "origin": "x", "counts": {}, "removed": {}}
    write_json(data / "card.json", {**card, "notes": ["2 texts cut"], "labels": ["negative", "neutral", "positive"]})
    folder = root / f"annotate-{key}"
    votes = write_annotation(folder, ANSWERS, GOLD, dollars=0.125)  # type: ignore[arg-type]
    votes.assign(rationale=f"because {SECRET}").to_parquet(folder / "annotations.parquet", index=False)
    settings = {
        "llm": llm or {"model": "gpt-4o", "base_url": "https://user:pw@llm.example/v1?api_key=sk-1234567890abcdefghijk"},
        "prompt": {name: value for name, value in dict(PROMPT).items() if name != "name"},
        "shots": {"k": 4}, "annotate": {"samples": 3, "temperature": 0.7},
    }  # fmt: skip
    record = {"step": "annotate", "parents": {"data": "d"}, "settings": json.loads(json.dumps(settings, default=list))}
    write_json(folder / "artifact.json", {"key": record})
    return folder


def run(tmp_path: Path, source: Path, *overrides: str) -> Path:
    """The folder that `stage=export` writes for these annotations."""
    config = composed("stage=export", f"export.annotations={source}", "logger=none", f"runs_dir={tmp_path}", *overrides)
    stage, folder = stage_of(config), tmp_path / "s" / "job"
    with jobs.running(config, stage, folder) as job:  # type: ignore[arg-type]
        stage.run(job)
    return folder / "annotations"


@pytest.mark.parametrize(("licence", "words", "texts"), [
    ("CC BY 4.0", (), True), ("not stated", (), False), ("the owner's", (), False), ("the owner's", ("export.texts=true",), True),
    ("MIT", ("export.texts=false",), False),
])  # fmt: skip
def test_texts_go_with_it_as_their_licence_or_the_user_says(
    licence: str, words: tuple[str, ...], texts: bool, tmp_path: Path
) -> None:
    folder = run(tmp_path, artifact(tmp_path / "store", licence), *words)
    votes = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    samples = datasets.load_dataset(str(folder), "samples", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(votes) == 4 and len(samples) == 12 and votes["label"] == ["positive", "negative", None, "neutral"]
    quotes = {"text", "gold", "rationale"}
    assert quotes <= set(votes.column_names) if texts else not quotes & set(votes.column_names)
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert texts or SECRET.encode() not in content
    card = valid_dataset_card(folder)
    assert ("The texts are included." in card.text) == texts
    assert licence in card.text and card.data["source_datasets"] == ["o/texts"]


def test_the_card_says_who_answered_and_how_far_they_agree(tmp_path: Path) -> None:
    folder = run(tmp_path, artifact(tmp_path / "store", "MIT"))
    text = valid_dataset_card(folder).text
    for expected in (
        "- gpt-4o at https://***@llm.example/v1: 3 answers per text at temperature 0.7, 4 demonstrations",
        "Classify the sentiment of a financial text for an investor. Answer with one word: negative, neutral or positive.",
        "75.0% of the texts have a valid answer. On the 3 texts with a human label, 0.667 of the annotations match it.",
        "| 2 of 3 | 1 |\n| 3 of 3 | 2 |", "0.1250 US dollars", "- 2 texts cut", "- made_up: Nobody (2026)", "(hash ",
        "| annotator | gpt-4o | the provider's terms |",
    ):  # fmt: skip
        assert expected in text, expected
    assert "sk-1234" not in text and "pw@" not in text
    assert valid_dataset_card(folder).data.license == "other"  # the strictest wins: a provider's terms over MIT


def test_an_ensemble_names_every_annotator(tmp_path: Path) -> None:
    store = tmp_path / "store"
    artifact(store, "CC0 1.0", key="a", llm={"model": "embedded:smollm2"})
    artifact(store, "CC0 1.0", key="b", llm={"model": "meta-llama/Llama-3.1-8B-Instruct"})
    whole = artifact(store, "CC0 1.0", key="w")
    record = {
        "step": "annotate",
        "settings": {"combine": "dawid_skene"},
        "parents": {"data": "d", "member/0": "a", "member/1": "b"},
    }
    write_json(whole / "artifact.json", {"key": record})
    card = valid_dataset_card(run(tmp_path, whole))
    assert card.data.license == "llama3.1" and "their votes were combined by: dawid_skene" in card.text
    assert "- HuggingFaceTB/SmolLM2-135M-Instruct: " in card.text and "- meta-llama/Llama-3.1-8B-Instruct: " in card.text


def test_an_annotator_in_a_folder_is_named_without_the_place_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "own-llama").mkdir()
    folder = run(tmp_path, artifact(tmp_path / "store", "MIT", llm={"model": str(tmp_path / "own-llama")}))
    text = valid_dataset_card(folder).text
    assert "- own-llama: 3 answers" in text and "| annotator | own-llama | unknown |" in text and str(tmp_path) not in text


@pytest.mark.parametrize(("model", "licence"), [
    ("tfidf", "mit"), ("rules", "mit"), ("embeddings", "apache-2.0"), ("neighbours", "apache-2.0"), ("recorded", "unknown"),
])  # fmt: skip
def test_annotators_that_are_no_model_of_somebodys(model: str, licence: str, tmp_path: Path) -> None:
    folder = run(tmp_path, artifact(tmp_path / "store", "MIT", llm={"model": model}))
    assert valid_dataset_card(folder).data.license == licence


def test_a_run_stands_for_the_annotations_that_it_used(tmp_path: Path) -> None:
    source = artifact(tmp_path / ".artifacts", "MIT")
    write_json(tmp_path / "moon" / "student-1" / "artifacts.json", {"annotate": source.name})
    assert len(pd.read_parquet(run(tmp_path, tmp_path / "moon" / "student-1") / "annotations.parquet")) == 4
    (tmp_path / "moon" / "teacher-1").mkdir()
    for words, message in (
        ([f"export.annotations={tmp_path}/moon/teacher-1"], "no annotations there, and it is not a run that used any"),
        ([f"export.annotations={tmp_path}/nowhere"], "no such folder"),
        ([f"export.annotations={source}", "evaluate.model=some/model"], "export one of them, remove the other"),
        ([], "stage=export needs evaluate.model"),
        (["export.texts=true", "evaluate.model=ProsusAI/finbert"], "export.texts=true only works with export.annotations"),
        ([f"export.annotations={source}", "export.dry_run=false"], "add export.push_to_hub=OWNER/NAME"),
        ([f"export.annotations={source}", "export.push_to_hub=moon"], "export.push_to_hub='moon' is not OWNER/NAME"),
    ):
        with pytest.raises(UserError, match=message):
            validate(composed("stage=export", *words))


def test_texts_that_were_put_back_by_hand_are_not_uploaded(tmp_path: Path) -> None:
    source = artifact(tmp_path / "store", "not stated")
    folder = run(tmp_path, source)
    words = ["stage=export", f"export.annotations={source}", "export.push_to_hub=me/votes"]
    publish(composed(*words), folder.parent, words)
    pd.DataFrame({"id": ["1"], "raw": [SECRET]}).to_parquet(folder / "samples.parquet")
    with pytest.raises(UserError, match=r"samples\.parquet contains texts that must not be uploaded"):
        publish(composed(*words), folder.parent, words)

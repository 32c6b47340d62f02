"""`stage=entities entities.step=label` through the application."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose

from findistill.config.expand import expand
from findistill.config.validate import validate
from findistill.errors import UserError
from tests.conftest import Command
from tests.fixtures.composing import shipped

BASE = ("stage=entities", "entities.step=label", "logger=none", "evaluate.resamples=20")
TEXTS = {
    "Acme rises": ["Acme"],
    "Bolt & Co sues Acme": ["Bolt & Co", "Acme"],
    "Oil slips": [],
    "🚀 Nestle\u0301 beats": ["Nestle\u0301"],
    "Dorf AG warns": ["Dorf AG"],
}


def rows(folder: Path) -> list[str]:
    """Overrides that read the texts and their spans as a data set; rows after the third are test rows."""
    lines = []
    for at, (text, names) in enumerate(TEXTS.items()):
        spans = [{"start": text.index(name), "end": text.index(name) + len(name), "label": "company"} for name in names]
        lines.append({"id": str(at), "text": text, "spans": spans, "split": "test" if at > 2 else "train"})
    (folder / "news.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["data=jsonl", "data.path=news.jsonl", "data.spans_column=spans", "data.split_column=split", "data.validation=0"]


def answers(folder: Path, **changes: Any) -> list[str]:
    lines = [{"text": text, "answer": json.dumps(changes.get(text[:4], names))} for text, names in TEXTS.items()]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["llm=recorded", "llm.path=answers.jsonl"]


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "runs" / "default" / "latest-entities" / "metrics.json").read_text()))


def test_recorded_answers_are_measured_on_test_rows(findistill: Command, tmp_path: Path) -> None:
    result = findistill(*BASE, *rows(tmp_path), *answers(tmp_path, Dorf=["Dorf", "Elbe"]), "extract.rows=test")
    assert result.returncode == 0, result.stderr
    values = metrics(tmp_path)
    assert values["test/f1"] == 0.5 and values["test/overlap_f1"] == 1 and values["test/n"] == 2
    assert values["annotate/missing"] == 1 and values["annotate/coverage"] == 1
    frame = pd.read_parquet(tmp_path / "runs" / "default" / "latest-entities" / "predictions.parquet")
    assert list(frame.columns) == ["id", "text", "spans", "predicted"] and len(frame) == 2
    assert "exact F1 0.500" in result.stderr and "runs/.artifacts/extract-" in result.stderr


def test_training_rows_are_labelled_and_their_key_follows_the_answers(findistill: Command, tmp_path: Path) -> None:
    def run(*more: str) -> Path:
        result = findistill(*BASE, *rows(tmp_path), *more)
        assert result.returncode == 0, result.stderr
        [path] = {*(tmp_path / "runs" / ".artifacts").glob("extract-*/annotations.parquet")} - known
        known.add(path)
        return path

    known: set[Path] = set()
    frame = pd.read_parquet(run(*answers(tmp_path)))
    assert len(frame) == 3 and [len(cell) for cell in frame["spans"]] == [1, 2, 0]
    assert metrics(tmp_path)["annotate/f1"] == 1
    frame = pd.read_parquet(run(*answers(tmp_path, Acme=[])))  # different file content, different artifact
    assert [len(cell) for cell in frame["spans"]] == [0, 2, 0]


def test_a_prompt_can_be_seen_before_anything_is_asked(findistill: Command, tmp_path: Path) -> None:
    result = findistill(
        *BASE, *rows(tmp_path), "data.labelled=2", "shots.k=2", "annotate.show_prompt=true", "annotate.dry_run=true"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[system]\n") and '"normalized_result"' in result.stdout and "[assistant]\n" in result.stdout
    assert "1 texts, 0 of them in the cache\n1 requests" in result.stdout
    assert not (tmp_path / "runs" / "default").exists()


def test_an_llm_is_tuned_to_name_entities_before_it_is_asked(findistill: Command, tmp_path: Path, tiny_llm: Path) -> None:
    """A random model tuned on ten headlines about Acme answers in JSON that the other headlines name Acme."""
    texts = [
        f"{verb} {what}"
        for verb in ("Acme buys", "Why Acme sells", "Acme counts")
        for what in ("oil", "tin", "gas", "ore", "rye")
    ]
    lines = [
        {"text": text, "spans": [{"start": text.index("Acme"), "end": text.index("Acme") + 4, "label": "company"}],
         "split": "test" if text.endswith("rye") else "train"}
        for text in texts
    ]  # fmt: skip
    (tmp_path / "news.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = findistill(
        *BASE, "data=jsonl", "data.path=news.jsonl", "data.spans_column=spans", "data.split_column=split", "data.validation=0.2",
        "llm=smollm2", f"llm.model={tiny_llm}", "llm.dtype=float32", "llm.adapter=tune", "extract=entities", "extract.rows=test",
        "annotate.samples=1", "annotate.temperature=0", "annotate.calibration=none", "shots.k=0", "qlora.quantization=none",
        "qlora.learning_rate=2e-2", "qlora.epochs=1", "qlora.min_steps=20", "qlora.target_modules=all-linear",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    values = metrics(tmp_path)
    assert values["annotate/coverage"] == 1 and values["test/f1"] == 1
    [adapter] = (path.parent for path in (tmp_path / "runs" / ".artifacts").glob("qlora-*/tuned.json"))
    [epoch] = json.loads((adapter / "tuned.json").read_text())["history"]
    assert epoch["val/accuracy"] == 1
    card = (adapter / "model" / "README.md").read_text()
    assert "extract=entities shots.k=0" in card and "names the entities" in card


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["llm=tfidf"], "llm=tfidf returns labels, but entities need generated text"),
        (["data=headlines"], "set shots.k=0"),
        (["llm=recorded", "llm.path=pyproject.toml", "llm.label_column=x"], "recorded entities are in llm.answer_column"),
        (["data=sentfin", "llm=recorded"], "llm.path is not set"),
        (["data=sentfin", 'annotate.ensemble=["shots.k=0","shots.k=2"]'], "annotate.ensemble combines votes on labels"),
        (["data=sentfin", "annotate.calibration=pool"], "annotate.calibration=pool is for label probabilities"),
        (["data=sentfin", "llm=smollm2", "llm.adapter=tune"], "set data.labelled to their number"),
        (["data=sentfin", "llm=smollm2", "llm.adapter=tune", "data.labelled=9", "shots.k=2"], "set shots.k=0"),
        (["data=headlines", "llm=smollm2", "llm.adapter=tune", "shots.k=0"], "data=headlines has none"),
        (["data=sentfin", "shots.selection=balanced"], "use nearest or random"),
        (["data=sentfin", "annotate.temperature=0"], "set annotate.samples=1"),
        (["data=sentfin", "annotate.max_cost_usd=1"], "llm.price.per_million_in"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(overrides: list[str], message: str) -> None:
    with shipped(), pytest.raises(UserError) as error:
        validate(expand(compose("config", [*BASE, *overrides])))  # type: ignore[arg-type]
    assert message in str(error.value)

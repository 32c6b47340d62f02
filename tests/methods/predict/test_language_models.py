"""`stage=predict` with language models: an adapter from `stage=qlora` with its own prompt, and the `llm` section."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from findistill.config.instantiate import build
from findistill.config.validate import validate
from findistill.core import run_folder
from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.inference.predictors import open_predictor
from findistill.llm.label_reader import LabelReader, label_probabilities
from findistill.llm.prompts import template
from findistill.methods.predict.models import spec_of
from findistill.methods.stage import stage_of
from tests.fixtures.jobs import job_of
from tests.methods.predict.conftest import NAMES, Predict, composed, metrics

TEXTS = ["Profit rose", "Shares fall after a warning", "The board meets", "Profit rose", ""]
CSV = ("data=csv", "data.path=news.csv")
LLM = ("predict.model=llm", f"data.labels=[{','.join(NAMES)}]", "prompt=direct")
SHARES = [f"p_{name}" for name in NAMES]


@pytest.fixture
def news(tmp_path: Path) -> Path:
    pd.DataFrame({"id": range(5), "text": TEXTS}).to_csv(tmp_path / "news.csv", index=False)
    return tmp_path / "news.csv"


@pytest.fixture(scope="module")
def tuned(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("runs")
    config = composed(
        "stage=qlora", "data=demo", f"llm.model={tiny_llm}", "llm.dtype=float32", "prompt.instruction='Mood?'", "qlora.epochs=1",
        "qlora.learning_rate=2e-2", "evaluate.resamples=20", "evaluate.latency=false",
    )  # fmt: skip
    validate(config)
    job = job_of(config, root, root / run_folder.folder_of(config, stage_of(config), []).name)
    job.step.run(job)
    return job


@pytest.mark.parametrize("place", ["run folder", "adapter"])
def test_an_adapter_answers_as_its_test_rows_were_scored(place: str, tuned: Job, predict: Predict, tmp_path: Path) -> None:
    scored = pd.read_parquet(tuned.folder / "predictions.parquet")
    scored[["text"]].to_csv(tmp_path / "news.csv", index=False)
    model = tuned.folder if place == "run folder" else tuned.folder / "model"
    frame = pd.read_parquet((folder := predict(*CSV, f"predict.model='{model}'")) / "predictions")
    assert [*frame] == ["text", "label", "confidence", *sorted(SHARES)]  # in the order of the demo's labels
    assert np.allclose(frame[SHARES], scored[SHARES], atol=1e-6) and frame["label"].tolist() == scored["predicted"].tolist()
    assert metrics(folder)["predict/rows"] == len(scored)


def test_the_model_of_the_llm_section_is_asked_with_its_prompt(predict: Predict, news: Path, tiny_llm: Path) -> None:
    folder = predict(
        *CSV, *LLM, f"llm.model={tiny_llm}", "llm.dtype=float32", "prompt.instruction='Mood?'", "predict.shard_rows=2"
    )
    frame = pd.read_parquet(folder / "predictions")
    assert len(list((folder / "predictions").glob("*.parquet"))) == 3
    config = composed("stage=predict", *LLM, f"llm.model={tiny_llm}", "llm.dtype=float32", "prompt.instruction='Mood?'")
    expected, _ = label_probabilities(build(config.llm), template(config.prompt, LabelSet(NAMES)), TEXTS[:3])
    assert np.allclose(frame[SHARES].iloc[:3], expected, atol=1e-6)
    assert frame["label"].iloc[:3].tolist() == [NAMES[column] for column in expected.argmax(1)]
    assert frame["label"].iloc[3] == frame["label"].iloc[0] and frame.iloc[4][["label", *SHARES]].isna().all()


def test_prompt_labels_and_adapter_are_part_of_the_key(predict: Predict, news: Path, tiny_llm: Path, tuned: Job) -> None:
    def key(*overrides: str) -> str:
        return stage_of(composed("stage=predict", "data=csv", f"data.path={news}", *overrides)).key

    llm = (*LLM, f"llm.model={tiny_llm}")
    changed = ("prompt.instruction='Mood?'", "data.labels=[up,down]", f"llm.adapter='{tuned.folder}'", "llm.chat=false")
    assert len({key(*llm), *(key(*llm, change) for change in changed)}) == 5
    assert key(*llm) == key(*llm, "llm.batch_tokens=64")
    other = (f"predict.model={tuned.folder}",)
    assert key(*other) == key(*other, "prompt.instruction='Mood?'")  # an adapter has its own prompt


def test_other_weights_of_the_base_and_another_adapter_of_the_hub_are_another_job(
    tuned: Job, tiny_llm: Path, news: Path, tmp_path: Path
) -> None:
    def key(*overrides: str) -> str:
        return stage_of(composed("stage=predict", "data=csv", f"data.path={news}", *overrides)).key

    base = shutil.copytree(tiny_llm, tmp_path / "base")
    adapter = shutil.copytree(tuned.folder / "model", tmp_path / "adapter")
    saved = json.loads((adapter / "prompt.json").read_text())
    (adapter / "prompt.json").write_text(json.dumps(saved | {"llm": saved["llm"] | {"model": str(base)}}))
    before = key(f"predict.model={adapter}")
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    assert key(f"predict.model={adapter}") != before
    llm = (*LLM, f"llm.model={tiny_llm}")
    assert len({key(*llm, f"llm.adapter={name}") for name in ("", "me/one", "me/other")}) == 3


def test_a_damaged_prompt_is_a_line(tuned: Job, news: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(tuned.folder / "model", tmp_path / "adapter")
    for content in ("", "[]", "{}", '{"llm": 3}'):
        (adapter / "prompt.json").write_text(content)
        with pytest.raises(UserError, match=r"prompt\.json cannot be read .*\nCopy the folder again"):
            validate(composed("stage=predict", "data=csv", f"data.path={news}", f"predict.model={adapter}"))


def test_an_adapter_can_be_served(tuned: Job, tmp_path: Path) -> None:
    config = composed("stage=serve", f"serve.model='{tuned.folder}'")
    validate(config)
    predictor = open_predictor(spec_of(config.serve.model, config.serve, config.trainer, tuned.store, "serve"))
    [row] = predictor.answer(["Profit rose"]).table.to_pylist()
    assert predictor.labels == ("negative", "neutral", "positive") and row["label"] in predictor.labels
    assert sum(row[name] for name in SHARES) == pytest.approx(1)


@pytest.mark.parametrize(("overrides", "message"), [
    ((*LLM, "llm=gpt4o"), "llm=gpt4o returns none: use stage=annotate"),
    ((*LLM, "prompt=cot"), "prompt=cot asks for steps before the label"),
    ((*LLM, "llm.adapter=tune"), "name a run folder of stage=qlora"),
    ((*LLM, "predict.engine=ray"), "language models need predict.engine=local"),
    ((*LLM, "data.labels=null"), r"data.labels=\[negative,neutral,positive\]"),
    (("stage=serve", "serve.model=llm"), "name a run folder of stage=qlora, or serve the model with vLLM"),
])  # fmt: skip
def test_what_cannot_be_asked_is_a_line_before_anything_runs(overrides: tuple[str, ...], message: str, news: Path) -> None:
    with pytest.raises(UserError, match=message):
        validate(composed("stage=predict", "data=csv", f"data.path={news}", *overrides))


def test_an_adapter_of_others_says_how_it_can_be_used(tuned: Job, news: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned.folder / "model", tmp_path / "theirs")
    (tmp_path / "theirs" / "prompt.json").unlink()
    with pytest.raises(UserError, match=f"Use it with its base: llm.adapter={tmp_path}/theirs"):
        validate(composed("stage=predict", "data=csv", f"data.path={news}", f"predict.model={tmp_path}/theirs"))


def test_what_lies_beside_an_adapter_names_no_engine(tuned: Job) -> None:
    """A third-party folder must not be able to run code: the engine is fixed."""
    reader = LabelReader.beside(tuned.folder / "model")
    assert "_target_" not in reader.llm and reader.labels == ("negative", "neutral", "positive")
    assert reader.prompt["instruction"] == "Mood?"


def test_a_prompt_that_cannot_be_asked_as_it_was_tuned_is_refused(tuned: Job, news: Path, tmp_path: Path) -> None:
    folder = tmp_path / "newer"
    shutil.copytree(tuned.folder / "model", folder)
    saved = json.loads((folder / "prompt.json").read_text())
    saved["prompt"]["tone"] = "polite"
    (folder / "prompt.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"sets tone, which this version does not know.\n.*--upgrade"):
        LabelReader.beside(folder)
    del saved["prompt"]  # an incomplete file: a one-line error before anything runs, as for invalid JSON
    (folder / "prompt.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"prompt.json cannot be read .*\n.*stage=qlora"):
        validate(composed("stage=predict", "data=csv", f"data.path={news}", f"predict.model={folder}"))

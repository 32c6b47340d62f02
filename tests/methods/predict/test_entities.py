"""`stage=predict` with models trained by `stage=entities`: from the run folder, on files of rows."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import constants

from findistill.config.expand import expand
from findistill.core import connection, run_folder
from findistill.core import job as jobs
from findistill.core.step import load
from findistill.errors import UserError
from findistill.methods.predict import windows as cutting
from findistill.methods.stage import stage_of
from findistill.models.folder import is_gliner
from tests.faults.conftest import tiny  # noqa: F401
from tests.fixtures.spans import draw, write_jsonl
from tests.methods.predict.conftest import Predict, composed, metrics

RECIPES = {
    "token": ("epochs=2", "min_steps=null", "max_length=32", "learning_rate=1e-2"),
    "gliner": (
        "epochs=3", "min_steps=null", "batch_size=8", "learning_rate=5e-3", "head_learning_rate=1e-2", "max_width=4",
        "max_length=16",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[*RECIPES])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:  # noqa: F811
    """The run folder of a tiny model that marks companies, through the link to the newest run."""
    kind = request.param
    if kind == "gliner":
        pytest.importorskip("gliner")
    root = tmp_path_factory.mktemp(kind)
    config: Any = expand(
        composed(
            "stage=entities", f"entities.model={kind}", f"entities.{kind}.encoder={tiny}", "trainer=cpu", "callbacks=none",
            *(f"entities.{kind}.{word}" for word in RECIPES[kind]), "evaluate.resamples=20", "evaluate.latency=false",
            "data=jsonl", f"data.path={write_jsonl(root / 'news.jsonl', draw(100))}", "data.spans_column=spans",
            "data.labels=[company]", f"runs_dir={root}", "study=names",
        )
    )  # fmt: skip
    stage = stage_of(config)
    jobs.run(config, stage, run_folder.folder_of(config, stage, ()))
    return root / "names" / "latest-entities"


def spans(cell: Any) -> list[tuple[int, int, str]] | None:
    return None if cell is None else [(each["start"], each["end"], each["label"]) for each in cell]


def test_a_run_folder_marks_rows_as_it_marked_its_test_texts(
    trained: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = pd.read_parquet(trained / "predictions.parquet")
    rows = pd.concat([tested[["id", "text"]], pd.DataFrame({"id": ["none"], "text": [None]}), tested[["id", "text"]].head(3)])
    rows.to_parquet(tmp_path / "news.parquet", index=False)
    common = ("data=parquet", "data.path=news.parquet", f"predict.model={trained}", "predict.shard_rows=8")
    monkeypatch.setattr(cutting, "ROWS", 5)
    folder = predict(*common)
    frame = pd.read_parquet(folder / "predictions")
    assert [*frame] == ["id", "text", "entities"] and frame["id"].tolist() == rows["id"].tolist()
    expected = [spans(cell) for cell in tested["predicted"]]
    assert [spans(cell) for cell in frame["entities"]] == [*expected, None, *expected[:3]] and sum(map(len, expected)) > 5
    assert all(
        each["text"] == text[each["start"] : each["end"]]
        for text, cell in zip(tested["text"], frame["entities"], strict=False)
        for each in cell
    )
    numbers = metrics(folder)
    assert numbers["predict/entities/company"] == sum(map(len, [*expected, *expected[:3]])) and numbers["predict/empty"] == 1


@pytest.fixture(params=[False, True], ids=["trained", "others"])
def published(
    request: pytest.FixtureRequest, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, bool]]:
    """The id of a cached hub model, with the hub unreachable; and whether its folder lacks findistill.json."""
    cache = tmp_path / "hub"
    folder = cache / "models--someone--names"
    shutil.copytree(trained / "model", folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    if request.param:
        (folder / "snapshots" / "abc" / "findistill.json").unlink(missing_ok=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(connection, "OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield "someone/names", not request.param


def test_a_model_of_the_hub(trained: Path, published: tuple[str, bool], predict: Predict, tmp_path: Path) -> None:
    reference, says_types = published
    tested = pd.read_parquet(trained / "predictions.parquet")
    tested[["text"]].to_parquet(tmp_path / "news.parquet")
    common = ("data=parquet", "data.path=news.parquet", f"predict.model={reference}")
    if is_gliner(trained) and not says_types:
        with pytest.raises(UserError, match=r"does not state its entity types: set predict.types=\[company\]"):
            predict(*common)
        folder = predict(*common, "predict.types=[company]")
        opened = load("findistill.inference.gliner:open_trained")(str(trained), (), "cpu")
        certain = replace(opened, use=replace(opened.use, threshold=0.5)).spans(tested["text"].tolist())
        assert metrics(folder)["predict/entities_per_text"] == sum(map(len, certain)) / len(tested)  # none, if too uncertain
        return
    frame = pd.read_parquet(predict(*common) / "predictions")
    assert [spans(cell) for cell in frame["entities"]] == [spans(cell) for cell in tested["predicted"]]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_workers_mark_what_one_process_does(
    engine: str, trained: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = draw(100).texts
    (tmp_path / "news.csv").write_text("\n".join(["text", *(f'"{text} ({n})"' for n, text in enumerate(texts))]) + "\n")
    common = ("data=csv", "data.path=news.csv", f"predict.model={trained}")
    monkeypatch.setattr(cutting, "ROWS", 16)
    alone = pd.read_parquet(predict(*common) / "predictions")
    if engine == "local":
        folder = predict(*common, "predict.workers=2", "study=several")
    else:
        ray = pytest.importorskip("ray", reason="needs findistill[ray]")
        ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(ray, "shutdown", lambda: None)
                folder = predict(*common, "predict.engine=ray", "predict.ray.max_actors=2", "study=ray")
        finally:
            ray.shutdown()
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "predictions"), alone, check_exact=True)


def test_a_model_that_marks_nothing_says_so(trained: Path, predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text("text\nRates stay where they are\n")
    folder = predict("data=csv", "data.path=news.csv", f"predict.model={trained}")
    numbers = metrics(folder)
    assert numbers["predict/entities_per_text"] == numbers["predict/with_entities"] == 0
    assert "predict/low_confidence" not in numbers, "which is a classifier's"

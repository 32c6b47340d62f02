"""Finished work is skipped after a kill, in another process or format, but never reused for another input or model."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from findistill.data import streams
from findistill.errors import UserError
from findistill.inference import predictors
from findistill.methods.predict import windows as cutting
from findistill.methods.predict.shards import Shards
from tests.methods.predict.conftest import Predict, metrics

CSV = ("data=csv", "data.path=news.csv", "predict.shard_rows=10")


def write(path: Path, rows: int, first: str = "Profit rose") -> None:
    path.write_text("\n".join(["text", first, *(f"Shares fell by {n}" for n in range(1, rows))]) + "\n")


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts passed to a model in this process, except the one that probes its columns."""
    texts: list[str] = []
    tokenise = predictors.tokenise

    def note(tokenizer: Any, some: Any, *rest: Any) -> Any:
        texts.extend(text for text in some if text != "text")
        return tokenise(tokenizer, some, *rest)

    monkeypatch.setattr(predictors, "tokenise", note)
    return texts


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def test_an_interrupted_job_goes_on_with_the_shard_it_was_at(
    predict: Predict, tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "news.csv", 35)
    expected = files(predict(*CSV, "study=whole") / "predictions")
    monkeypatch.setattr(cutting, "ROWS", 4)
    expected_windows = files(predict(*CSV, "study=windows") / "predictions")
    assert [*expected] == [*expected_windows] == [f"part-0000{n}.parquet" for n in range(4)]
    inputs.clear()
    tokenise = predictors.tokenise

    def stop(tokenizer: Any, some: Any, *rest: Any) -> Any:
        if "Shares fell by 25" in some:
            raise KeyboardInterrupt
        return tokenise(tokenizer, some, *rest)

    monkeypatch.setattr(predictors, "tokenise", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(*CSV)
    [folder] = (tmp_path / "runs" / "default").glob("predict-*")
    assert [*files(folder / "predictions")] == ["part-00000.parquet", "part-00001.parquet"]
    assert not [path for path in (folder / "predictions").iterdir() if path.name.startswith(".part")]
    monkeypatch.setattr(predictors, "tokenise", tokenise)
    inputs.clear()
    assert predict(*CSV).resolve() == folder
    assert inputs == [f"Shares fell by {n}" for n in range(20, 35)]
    assert files(folder / "predictions") == expected_windows and metrics(folder)["predict/rows"] == 35


def test_a_done_job_is_done_and_a_damaged_shard_is_made_again(predict: Predict, tmp_path: Path, inputs: list[str]) -> None:
    write(tmp_path / "news.csv", 35)
    folder = predict(*CSV)
    before = files(folder / "predictions")
    inputs.clear()
    predict(*CSV)
    assert inputs == []
    (folder / "predictions" / "part-00001.parquet").write_bytes(b"")
    (folder / "predictions" / ".part-00002.parquet.x1").write_bytes(b"of a process that was killed")
    predict(*CSV)
    assert inputs == [f"Shares fell by {n}" for n in range(10, 20)] and files(folder / "predictions") == before
    assert not list((folder / "predictions").glob(".part*"))


@pytest.mark.parametrize("change", ["input", "model", "setting"])
def test_what_changed_meets_no_old_shard(change: str, predict: Predict, tmp_path: Path, model: Path, inputs: list[str]) -> None:
    write(tmp_path / "news.csv", 35)
    shutil.copytree(model, tmp_path / "model")
    settings = [*CSV, "predict.model=model"]
    first = predict(*settings)
    inputs.clear()
    if change == "input":
        write(tmp_path / "news.csv", 35, "Loss rose")
    elif change == "model":
        text = (tmp_path / "model" / "config.json").read_text()
        (tmp_path / "model" / "config.json").write_text(text.replace('"negative"', '"worse"'))
    else:
        settings.append("predict.batch_size=7")
    second = predict(*settings)
    assert second != first and len(inputs) == 35
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "news.csv").replace(tmp_path / "elsewhere" / "news.csv")
    assert predict(*settings, "data.path=elsewhere/news.csv") == second and len(inputs) == 35


def test_a_folder_elsewhere_is_filled_up_and_never_mixed(predict: Predict, tmp_path: Path, inputs: list[str]) -> None:
    write(tmp_path / "news.csv", 35)
    out = tmp_path / "out"
    predict(*CSV, f"predict.out={out}")
    before = files(out)
    assert len(before) == 4 and [*pd.read_parquet(out)] == [
        "text",
        "label",
        "confidence",
        "p_positive",
        "p_negative",
        "p_neutral",
    ]
    (out / "part-00002.parquet").unlink()
    inputs.clear()
    predict(*CSV, f"predict.out={out}")  # the job is done; the missing shard is written
    assert inputs == [f"Shares fell by {n}" for n in range(20, 30)] and files(out) == before
    write(tmp_path / "news.csv", 12)
    with pytest.raises(UserError, match="has files that this job did not write") as error:
        predict(*CSV, f"predict.out={out}")
    assert files(out) == before
    predict(*CSV, str(error.value).rpartition(": ")[2])
    assert len(files(tmp_path / "out-2")) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("of somebody")
    with pytest.raises(UserError, match=r"letters\.txt"):
        predict(*CSV, "predict.out=mine")


def test_another_runtime_writes_every_shard_again_and_leaves_other_files(tmp_path: Path) -> None:
    job, rows = {"key": "a", "runtime": "onnx model.onnx"}, pa.table({"text": ["Profit rose"]})
    shards = Shards.claim(tmp_path / "out", "parquet", job, own=False)
    with shards.writing(0, rows.schema, Counter(rows=1)) as writer:
        writer.write_table(rows)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert Shards.claim(tmp_path / "out", "parquet", job, own=False).record(0) == {"rows": 1}
    again = Shards.claim(tmp_path / "out", "parquet", job | {"runtime": "torch"}, own=False)
    assert again.record(0) is None and not again.path(0).exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_rows_are_skipped_without_being_made(tmp_path: Path) -> None:
    """Skipping any number of rows, in any format, gives the remaining rows of a full read."""
    from tests.methods.predict.conftest import composed

    frame = pd.DataFrame({"text": [f"t{n}" for n in range(25)]})
    frame.to_csv(tmp_path / "f.csv", index=False)
    frame.to_json(tmp_path / "f.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "f.parquet", row_group_size=10)
    for name in ("csv", "jsonl", "parquet"):
        config = composed("stage=predict", f"data={name}", f"data.path={tmp_path}/f.{name}")
        stream = streams.open_stream(config.data, [tmp_path / f"f.{name}"] * 2)
        assert stream.rows == 50
        for skip in (0, 9, 10, 24, 25, 31, 49, 50):
            texts = [text for _, some in stream.tables(skip) for text in some]
            assert texts == [*frame["text"], *frame["text"]][skip:], (name, skip)


@pytest.mark.slow
def test_a_kill_costs_one_shard_at_most(model: Path, tmp_path: Path) -> None:
    """With two workers, the job's process is killed (SIGKILL) twice: the workers end with it, and the files are the same."""
    write(tmp_path / "news.csv", 12_000)
    command = [
        sys.executable, "-m", "findistill", "stage=predict", f"predict.model={model}", "data=csv", "data.path=news.csv",
        "logger=none", "predict.workers=2", "predict.shard_rows=1536", "trainer.accelerator=cpu",
    ]  # fmt: skip

    def start(study: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, f"study={study}"], cwd=tmp_path, env=os.environ, start_new_session=True)

    assert start("whole").wait(300) == 0
    [whole] = (tmp_path / "runs" / "whole").glob("predict-*")
    mtimes: dict[str, int] = {}
    for at_least in (1, 4):
        process = start("cut")
        limit = time.monotonic() + 200
        while len(paths := list(tmp_path.glob("runs/cut/predict-*/predictions/.findistill/part-*.json"))) < at_least:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.kill()
        process.wait()
        limit = time.monotonic() + 30
        while processes := subprocess.run(["ps", "-o", "args=", "-s", str(process.pid)], capture_output=True, check=False).stdout:
            assert time.monotonic() < limit, processes
            time.sleep(0.2)
        for path in paths:
            mtimes.setdefault(path.name, path.stat().st_mtime_ns)
    assert start("cut").wait(300) == 0
    [cut] = (tmp_path / "runs" / "cut").glob("predict-*")
    assert files(cut / "predictions") == files(whole / "predictions") and len(files(whole / "predictions")) == 8
    records = cut / "predictions" / ".findistill"
    assert all((records / name).stat().st_mtime_ns == changed for name, changed in mtimes.items()) and len(mtimes) >= 4
    assert json.loads((cut / "status.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(model: Path, tmp_path: Path) -> None:
    peaks = []
    for rows in (20_000, 120_000):
        write(tmp_path / "news.csv", rows)
        command = [
            sys.executable, "-m", "findistill", "stage=predict", f"predict.model={model}", "data=csv", "data.path=news.csv",
            "logger=none", "predict.workers=1", "predict.shard_rows=8192", "trainer.accelerator=cpu", f"study=rows{rows}",
        ]  # fmt: skip
        assert subprocess.run(command, cwd=tmp_path, env=os.environ, check=False).returncode == 0
        [folder] = (tmp_path / "runs" / f"rows{rows}").glob("predict-*")
        peaks.append(metrics(folder)["memory/peak_mb"])
    assert peaks[1] - peaks[0] < 60, peaks

"""A model that trains in a second, a user's own files, and the application as a user runs it."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from findistill import cli as app

WORDS = {"negative": ("loss", "warning"), "neutral": ("meeting", "report"), "positive": ("gain", "record")}
ROWS = [(f"Company {n} tells of a {WORDS[label][n % 2]} in {1950 + n}", label) for n, label in enumerate([*WORDS] * 20)]
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)


@dataclass(frozen=True)
class Outcome:
    """How a run of the application ended."""

    code: int
    errors: str
    output: str = ""

    def is_mistake(self, *words: str) -> None:
        """Assert exit code 2 and a message of at most three lines that contains `words`, without a traceback."""
        assert self.code == 2 and "Traceback" not in self.errors, self.errors
        message = self.errors[self.errors.rindex("findistill: ") :]
        assert 1 <= len(message.splitlines()) <= 3 and all(len(line) < 250 for line in message.splitlines()), message
        assert [word for word in words if word not in message] == [], message


Application = Callable[..., Outcome]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT, 2 layers of width 32, and MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from findistill.models.weights import locate

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        initializer_range=0.1,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("embedded:minilm_l6")).save_pretrained(folder)
    return folder


SMALL = ("logger=none", "evaluate.latency=false", "evaluate.resamples=20", "trainer.max_epochs=1", "sweep.report=false")
OWN = ("data=csv", "data.path=mine.csv", "data.label_column=label")


@pytest.fixture
def teacher(tiny: Path, tmp_path: Path) -> tuple[str, ...]:
    """Overrides that train the tiny model on mine.csv, in `tmp_path`; a test may overwrite the file."""
    (tmp_path / "mine.csv").write_text(CSV)
    return ("stage=teacher", f"teacher={tiny}", *OWN, *SMALL)


@pytest.fixture
def student(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Overrides that train the tiny model on synthetic human votes, unanimous for one class only."""
    folder = tmp_path / "data" / "financial_phrasebank"
    folder.mkdir(parents=True)
    lines = [f"{text} .@{label}\n" for text, label in ROWS]
    unanimous = [line for line in lines if line.endswith("positive\n")]
    for level, sentences in {"50": lines, "66": lines[:50] + unanimous, "75": lines[:40] + unanimous, "All": unanimous}.items():
        (folder / f"Sentences_{level}Agree.txt").write_text("".join(dict.fromkeys(sentences)))
    monkeypatch.setenv("FINDISTILL_DATA", str(tmp_path / "data"))
    return ("stage=student", f"student={tiny}", "data=phrasebank", "distill.source=human", *SMALL)


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Application]:
    """Run the console script's `main` in this process, where torch is already loaded, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    log, terminated = logging.getLogger("findistill"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["findistill", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        log.handlers.clear()
        with pytest.raises(SystemExit) as exit_info:
            app.main()
        output, errors = capfd.readouterr()
        return Outcome(exit_info.value.code if isinstance(exit_info.value.code, int) else 1, errors, output)

    yield run
    log.handlers.clear()
    log.propagate = True
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the application in `tmp_path` as a separate process to send signals to; killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "findistill", *arguments],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
            start_new_session=True,  # so that a test can signal it together with its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background pytest ignores SIGINT
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def outcome_of(process: "subprocess.Popen[str]", limit_s: float = 200) -> Outcome:
    _, errors = process.communicate(timeout=limit_s)
    return Outcome(process.returncode, errors)


def wait_for(condition: Callable[[], object], *processes: "subprocess.Popen[str]") -> None:
    """Wait until the condition holds; fail if a process ends first."""
    limit = time.monotonic() + 200
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.02)


def states(runs: Path, study: str = "*") -> dict[str, str]:
    """Study and folder of each job -> its state."""
    return {
        f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text())["state"]
        for path in sorted(runs.glob(f"{study}/*/status.json"))
        if not path.parent.name.startswith(("latest-", "."))
    }


def results(study: Path) -> tuple[pd.DataFrame, dict[str, dict[str, float]], dict[str, list[dict[str, Any]]]]:
    """A study's table, and its jobs' metrics and predictions, without times and memory: equal if the work was."""
    table = pd.read_csv(study / "table.csv")
    jobs = [path.parent for path in sorted(study.glob("*/metrics.json")) if not path.parent.is_symlink()]
    metrics = {job.name: json.loads((job / "metrics.json").read_text()) for job in jobs}
    return (
        table[[name for name in table if not re.search(r"_s$|_ms$|_mb$", name)]],
        {job: {k: v for k, v in each.items() if not k.startswith(("time/", "memory/"))} for job, each in metrics.items()},
        {job.name: pd.read_parquet(job / "predictions.parquet").to_dict("records") for job in jobs},
    )


def assert_same(these: Any, those: Any) -> None:
    """Compare two outputs of `results`."""
    pd.testing.assert_frame_equal(these[0], those[0], check_exact=True)
    assert these[1:] == those[1:]


def assert_nothing_half_written(runs: Path, resumable: tuple[str, ...] = ()) -> None:
    """No temporary file, no lock beside a job, and every artifact complete."""
    for path in runs.rglob("*"):
        assert not re.search(r"\.tmp$|\.\d+\.tmp|^\.(?!artifacts$)", path.name), path
    for folder in runs.glob(".artifacts/*/"):
        if folder.name not in ("tokens", "responses") and not folder.name.startswith(resumable or ("\0",)):
            assert (folder / "artifact.json").exists() and folder.suffix != ".partial", folder

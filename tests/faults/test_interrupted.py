"""Ctrl-C, SIGTERM and SIGKILL: the job is not marked done, and the same command resumes it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from findistill.methods.status.jobs import study_jobs
from findistill.methods.status.stage import describe
from tests.faults.conftest import ROWS, Application, assert_nothing_half_written, outcome_of, states, wait_for
from tests.llm.servers import KEY, LoopbackServer, Reply, seeded

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.slow
def test_a_training_is_interrupted_and_not_shared(
    start: Start, application: Application, teacher: tuple[str, ...], tmp_path: Path
) -> None:
    command = (*teacher, "logger=csv", "trainer.batch_size=1", "trainer.max_epochs=10")
    signals = {tmp_path / "runs": signal.SIGINT, tmp_path / "other": signal.SIGTERM}
    started = {runs: start(*command, f"runs_dir={runs.name}") for runs in signals}

    def all_in_training() -> bool:
        training = [process for runs, process in started.items() if [*runs.glob("*/teacher-*/csv/metrics.csv")]]
        for process in training:  # Lightning writes the file after 100 of 430 steps; pause the process there
            process.send_signal(signal.SIGSTOP)
        return len(training) == len(started)

    wait_for(all_in_training, *started.values())
    outcome_of(start(*command)).is_mistake("another process is running ")
    assert "1 jobs: 1 running" in describe(tmp_path / "runs" / "default")  # another process holds its lock
    for runs, process in started.items():
        process.send_signal(signals[runs])
        process.send_signal(signal.SIGCONT)
        outcome = outcome_of(process)
        assert outcome.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[signals[runs]]
        assert outcome.errors.endswith("findistill: interrupted; run the same command to resume\n")
        assert "Traceback" not in outcome.errors
        [status] = runs.glob("*/teacher-*/status.json")
        assert [json.loads(status.read_text())[key] for key in ("state", "error")] == ["failed", "interrupted"]
        assert_nothing_half_written(runs)
    assert application(*command).code == 0
    assert list(states(tmp_path / "runs").values()) == ["done"]


@pytest.mark.slow
def test_an_annotation_is_interrupted_and_goes_on(
    start: Start, application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(body: dict) -> Reply:
        reply = seeded(body)
        reply.after_s = 0.01
        return reply

    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = LoopbackServer(slowly)
    (tmp_path / "mine.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in ROWS))
    command = (
        "stage=annotate", "data=csv", "data.path=mine.csv", "shots.k=0", "llm=endpoint", "llm.model=m", "logger=none",
        f"llm.base_url={server.url}", "llm.api_key_env=TEST_KEY", "annotate.concurrency=2",
    )  # fmt: skip
    runs = tmp_path / "runs"
    first = start(*command)
    journals = lambda: [*runs.glob(".artifacts/responses/*.jsonl")]  # noqa: E731
    wait_for(lambda: journals() and journals()[0].read_text().count("\n") >= 80, first)
    first.send_signal(signal.SIGINT)
    outcome = outcome_of(first)
    assert outcome.code == 130 and "Traceback" not in outcome.errors, outcome.errors
    assert list(states(runs).values()) == ["failed"]
    assert_nothing_half_written(runs, resumable=("annotate-",))
    responses = journals()[0].read_text().count("\n")
    assert responses < 8 * len(ROWS)

    server.bodies.clear()
    second = application(*command)
    server.stop()
    assert second.code == 0 and f"reused {responses:,} cached responses" in second.errors
    assert list(states(runs).values()) == ["done"] and not [*runs.glob(".artifacts/*.partial")]
    assert len(server.requests) == 8 * len(ROWS) - responses
    [annotations] = runs.glob(".artifacts/annotate-*/annotations.parquet")
    assert len(pd.read_parquet(annotations)) == len(ROWS) and KEY not in outcome.errors + second.errors


@pytest.mark.slow
def test_a_killed_sweep_ends_as_one_that_was_not(start: Start, teacher: tuple[str, ...], tmp_path: Path) -> None:
    sweep = ("-m", *teacher, "study=moon", "trainer.batch_size=4", "trainer.max_epochs=3", "seed=0,1,2")
    whole = start(*sweep, "runs_dir=whole")
    cut = start(*sweep)
    wait_for(lambda: "done" in states(tmp_path / "runs").values(), cut)
    cut.kill()
    cut.communicate()
    job_states = states(tmp_path / "runs")
    standing = {job.state for job in study_jobs(tmp_path / "runs" / "moon")}
    assert standing <= {"done", "interrupted", "to run"} and len(standing) > 1  # none is running, whatever status.json says
    again = outcome_of(start(*sweep))
    assert outcome_of(whole).code == 0 and again.code == 0, again.errors
    n_done = list(job_states.values()).count("done")
    assert n_done < 3 and f"3 jobs: {n_done} already done, {3 - n_done} to run" in again.errors
    assert_nothing_half_written(tmp_path / "runs")
    assert "\n3 jobs: 3 done\n" in describe(tmp_path / "runs" / "moon")
    frames = [{path.parent.name: pd.read_parquet(path) for path in tmp_path.glob(f"{root}/moon/teacher-*/predictions.parquet")}
             for root in ("whole", "runs")]  # fmt: skip
    assert len(frames[0]) == 3 and frames[0].keys() == frames[1].keys()
    for job, predictions in frames[0].items():
        pd.testing.assert_frame_equal(predictions, frames[1][job], check_exact=True)


def descendants(process: "subprocess.Popen[str]") -> set[int]:
    """The processes that a process has started, directly or indirectly."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    family = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {process.pid}


@pytest.mark.slow
@pytest.mark.parametrize("sent_to", ["the command", "all its processes"])
def test_jobs_side_by_side_are_terminated(start: Start, teacher: tuple[str, ...], tmp_path: Path, sent_to: str) -> None:
    """Docker signals only the command, Slurm and systemd all its processes."""
    sweep = (
        "-m", *teacher, "study=moon", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.batch_size=1",
        "trainer.max_epochs=2", "trainer.checkpoint_every=5", "seed=0,1,2",
    )  # fmt: skip
    process = start(*sweep)
    wait_for(lambda: len([*tmp_path.glob("runs/moon/*/checkpoints/last.ckpt")]) == 2, process)
    workers = descendants(process)
    assert len(workers) >= 2
    sent = time.monotonic()
    if sent_to == "the command":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGTERM)
    outcome = outcome_of(process)
    assert outcome.code == 143 and time.monotonic() - sent < 10, outcome.errors
    assert "\nfindistill: interrupted; run the same command to resume\n" in outcome.errors, outcome.errors
    assert "Traceback" not in outcome.errors, outcome.errors
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert "done" not in states(tmp_path / "runs").values()
    again = outcome_of(start(*sweep))
    assert again.code == 0, again.errors
    assert list(states(tmp_path / "runs").values()) == ["done"] * 3
    assert_nothing_half_written(tmp_path / "runs")

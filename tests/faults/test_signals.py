"""SIGTERMs and SIGKILLs, twenty each, at random moments of a sweep that annotates, trains and reports: the table is unchanged."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from findistill.core import run_folder
from tests.faults.conftest import CSV, OWN, assert_same, results, states
from tests.fixtures.preloaded import Preloaded, Running
from tests.llm.servers import KEY, LoopbackServer, Reply, seeded

IN_FLIGHT, SAMPLES, JOBS = 4, 8, 2
PHASES = ("start", "annotation", "training", "report", "end")
PROMPTLY_S = 10.0  # Slurm kills after 30, Docker after 10


def slowly(body: dict) -> Reply:
    reply = seeded(body)
    reply.after_s = 0.005
    return reply


@dataclass(frozen=True)
class Sweep:
    """A command whose annotator is a loopback server, in `folder`."""

    preloaded: Preloaded
    command: list[str]
    folder: Path
    server: LoopbackServer

    def start(self, runs: str) -> Running:
        environment = {**os.environ, "TEST_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        return self.preloaded.start(["findistill", *self.command, f"runs_dir={runs}"], self.folder, environment)

    def phase(self, runs: str, running: Running) -> str:
        """The phase a process is in."""
        study = self.folder / runs / "moon"
        if "jobs: " not in running.printed():
            return "start"
        if not any(path.suffix == "" for path in study.parent.glob(".artifacts/annotate-*")):
            return "annotation"
        count = list(states(study.parent).values()).count("done")
        return "training" if count < JOBS else "report" if not run_folder.report_is_current(study) else "end"

    def whole(self, runs: str) -> dict[str, float]:
        """Run the command to completion; returns the seconds that each phase took."""
        running, seconds, before = self.start(runs), Counter[str](), time.monotonic()
        while not running.ended(0.01):
            now = time.monotonic()
            seconds[self.phase(runs, running)] += now - before
            before = now
        result = running.wait(1)
        assert result.returncode == 0, result.stderr[-3000:]
        return dict(seconds)


@pytest.fixture
def sweep(preloaded: Preloaded, tiny: Path, tmp_path: Path) -> Iterator[Sweep]:
    server = LoopbackServer(slowly)
    (tmp_path / "mine.csv").write_text(CSV)
    command = [
        "-m", "stage=student", "distill=cls,logit", f"student={tiny}", f"teacher={tiny}", *OWN, "study=moon",
        "logger=wandb", "logger.wandb.mode=offline", "trainer.max_epochs=2", "trainer.batch_size=4", "trainer.checkpoint_every=3",
        "evaluate.latency=false", "evaluate.resamples=20", "report.resamples=10", "report.baselines=[majority]",
        "llm=endpoint", "llm.model=m", f"llm.base_url={server.url}", "llm.api_key_env=TEST_KEY", "shots.k=0",
        f"annotate.samples={SAMPLES}", f"annotate.concurrency={IN_FLIGHT}",
    ]  # fmt: skip
    yield Sweep(preloaded, command, tmp_path, server)
    server.stop()


def check_terminated(result: "subprocess.CompletedProcess[str]", phase: str, seconds: float) -> None:
    """Check that SIGTERM ended the command promptly and with one line; before Python starts, the system itself ends it."""
    assert seconds < PROMPTLY_S, (phase, seconds, result.stderr[-2000:])
    if phase == "start" and result.returncode == -signal.SIGTERM:
        return
    assert result.returncode == 143, (phase, result.returncode, result.stderr[-2000:])
    assert result.stderr.endswith("findistill: interrupted; run the same command to resume\n"), (phase, result.stderr[-2000:])
    assert "Traceback" not in result.stderr, (phase, result.stderr[-4000:])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("number", "signals"), [
    pytest.param(signal.SIGKILL, 4, marks=pytest.mark.slow), pytest.param(signal.SIGKILL, 20, marks=pytest.mark.thorough),
    pytest.param(signal.SIGTERM, 4, marks=pytest.mark.slow), pytest.param(signal.SIGTERM, 20, marks=pytest.mark.thorough),
])  # fmt: skip
def test_a_sweep_is_ended_at_random_moments(sweep: Sweep, number: signal.Signals, signals: int) -> None:
    """Each study is stopped once in every phase, at a random moment of the phase, then completed."""
    lasts = sweep.whole("whole")
    paid = len(sweep.server.requests)
    expected, draw = results(sweep.folder / "whole" / "moon"), random.Random(number)
    hit, delays, studies = Counter[str](), [0.0], 0
    of_each = 3 if signals >= 20 else 0  # a phase may be shorter than in the first run, so that the signal hits the next
    while hit.total() < signals or any(hit[phase] < of_each for phase in PHASES[:-1]):
        assert studies < 3 * signals, hit
        runs, calls, studies, interrupted = f"runs{studies}", len(sweep.server.requests), studies + 1, 0
        for phase in PHASES[:-1]:
            running, goal, reached = sweep.start(runs), draw.uniform(0, 0.9) * lasts[phase], None
            while not running.ended(0.002):
                if reached is None and PHASES.index(sweep.phase(runs, running)) >= PHASES.index(phase):
                    reached = time.monotonic()
                if reached is not None and time.monotonic() - reached >= goal:
                    break
            if running.ended():  # faster than the first run: nothing was interrupted
                assert running.wait(1).returncode == 0
                continue
            now, sent = sweep.phase(runs, running), time.monotonic()
            os.kill(running.pid, number)
            try:
                result = running.wait(60)
            except subprocess.TimeoutExpired as late:
                pytest.fail(f"{now}: not ended after 60 s\n{late.stderr}")
            if result.returncode == 0 and now in ("report", "end"):  # everything was done when the signal arrived
                continue
            delays.append(time.monotonic() - sent)
            if number == signal.SIGTERM:
                check_terminated(result, now, delays[-1])
            else:
                assert result.returncode == -signal.SIGKILL, result.stderr[-2000:]
            hit[now] += 1
            interrupted += 1
        sweep.whole(runs)
        assert_same(results(sweep.folder / runs / "moon"), expected)
        assert len(sweep.server.requests) - calls <= paid + interrupted * IN_FLIGHT
    print(f"{number.name}: {dict(hit)} in {studies} studies; ended after {max(delays):.2f} s at most; a sweep took {lasts}")

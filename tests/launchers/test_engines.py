"""The same sweep under every launcher, on real engines: the same table, annotated only once, resumed after a kill."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import CSV, OWN, SMALL, outcome_of, results, states, wait_for
from tests.launchers.conftest import need, workers

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

Start = Callable[..., "subprocess.Popen[str]"]
LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
    "submitit_local_pairs": ("hydra/launcher=submitit_local", "hydra.launcher.jobs_per_process=2"),
    "submitit_slurm": ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.poll_s=0.5"),
    "ray": ("hydra/launcher=ray",),
}
APART = [name for name in LAUNCHERS if name != "basic"]
THREADS = {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
SLOW = ("trainer.batch_size=1", "trainer.max_epochs=6", "trainer.checkpoint_every=5")


@pytest.fixture
def launch(request: pytest.FixtureRequest, start: Start) -> Callable[..., "subprocess.Popen[str]"]:
    """Start a command under a launcher; its engine is started on first use."""

    def run(launcher: str, *arguments: str) -> "subprocess.Popen[str]":
        words, environment = list(LAUNCHERS[launcher]), dict(THREADS)
        if launcher == "submitit_slurm":
            environment |= request.getfixturevalue("slurm")
        elif launcher == "ray":
            words.append(f"hydra.launcher.address={request.getfixturevalue('ray_nodes')[0]}")
        elif launcher.startswith("submitit_local"):
            need("submitit")
        return start("-m", *arguments, *words, **environment)

    return run


def numbers(study: Path) -> list[Any]:
    table, *others = results(study)
    return [table.to_csv(), *others]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_table_is_the_same_and_the_annotation_made_once(
    launcher: str, launch: Any, tiny: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    rules = "llm.rules={positive: [gain, record], negative: [loss, warning], neutral: [meeting, report]}"
    sweep = (
        f"student={tiny}", *OWN, "llm=rules", rules, "distill.min_agreement=1", "distill=cls,reg", "seed=0,1", "study=moon",
        *(word for word in SMALL if word != "sweep.report=false"), "report.resamples=10",
    )  # fmt: skip
    outcome = outcome_of(launch(launcher, *sweep))
    assert outcome.code == 0, outcome.errors[-3000:]
    artifacts = {path.parent.name for path in tmp_path.glob("runs/.artifacts/*/artifact.json")}
    assert artifacts == expected.setdefault("artifacts", artifacts)
    table = numbers(tmp_path / "runs" / "moon")
    assert table == expected.setdefault("numbers", table)
    logs = [path.read_text() for path in tmp_path.glob("runs/.workers/moon/*/*_log.err")]
    # Two Ray nodes on one machine each print all lines; a line begins with its process.
    lines = [line for text in [outcome.errors, *logs] for line in set(text.splitlines()) if "annotating 48 texts of csv" in line]
    assert len(lines) == 1, lines
    assert len([*tmp_path.glob("runs/moon/student*/metrics.json")]) == 4
    again = outcome_of(launch("basic", *sweep))  # whatever the launcher
    assert again.code == 0 and "4 jobs: 4 already done, 0 to run" in again.errors, again.errors


@pytest.mark.parametrize("launcher", APART)
def test_a_killed_worker_fails_its_job_alone(launcher: str, launch: Any, teacher: tuple[str, ...], tmp_path: Path) -> None:
    sweep = (*teacher, *SLOW, "study=moon", "seed=0,1,2")
    process = launch(launcher, *sweep)
    wait_for(lambda: workers(tmp_path / "runs") and [*tmp_path.glob("runs/moon/*/checkpoints/last.ckpt")], process)
    os.kill(next(iter(workers(tmp_path / "runs").values())), signal.SIGKILL)
    outcome = outcome_of(process)
    assert outcome.code == 1 and "1 of 3 jobs are not done; run the same command to retry them" in outcome.errors, outcome.errors
    assert "Traceback" not in outcome.errors
    assert sorted(states(tmp_path / "runs").values()) == ["done", "done", "failed"]
    resume(launch, launcher, sweep, tmp_path / "runs", n_done=2)


@pytest.mark.parametrize("launcher", APART)
def test_a_killed_command_is_resumed(launcher: str, launch: Any, teacher: tuple[str, ...], tmp_path: Path) -> None:
    """Slurm jobs and submitit processes outlive the command: the next one waits for them instead of running them twice."""
    sweep = (*teacher, *SLOW, "study=moon", "seed=0,1,2")
    process = launch(launcher, *sweep)
    wait_for(lambda: "done" in states(tmp_path / "runs").values(), process)
    process.kill()
    resume(launch, launcher, sweep, tmp_path / "runs")


def test_the_head_of_the_cluster_is_killed(
    launch: Any, ray_nodes: tuple[str, list[Any]], teacher: tuple[str, ...], tmp_path: Path
) -> None:
    sweep = (*teacher, *SLOW, "study=moon", "seed=0,1,2")
    process = launch("ray", *sweep)
    wait_for(lambda: "done" in states(tmp_path / "runs").values(), process)
    os.killpg(ray_nodes[1][0].pid, signal.SIGKILL)
    outcome = outcome_of(process)
    assert outcome.code != 0
    resume(launch, "joblib", sweep, tmp_path / "runs")


def test_what_no_node_has_is_said(launch: Any, ray_nodes: tuple[str, list[Any]], teacher: tuple[str, ...]) -> None:
    """Two nodes with one processor each have no room for a job, or an actor, of two."""
    process = launch("ray", *teacher, "seed=1", "hydra.launcher.num_cpus=2")
    assert process.stderr is not None
    assert any("no node of the cluster has 2 CPU, as one job needs" in line for line in process.stderr)
    process.terminate()
    process.wait()
    assert outcome_of(launch("basic", *teacher)).code == 0
    model = ("stage=predict", "predict.model=runs/default/latest-teacher", *OWN[:2], "predict.prefix=new_", "logger=none")
    actors = ("predict.engine=ray", f"predict.ray.address='{ray_nodes[0]}'", "predict.ray.cpus=2")
    outcome = outcome_of(launch("basic", *model, *actors))
    assert outcome.code == 1 and "predict.ray.cpus=2 predict.ray.gpus=0: no node of the cluster has these" in outcome.errors


def test_a_cancelled_job_of_slurm_fails_alone(
    launch: Any, slurm: dict[str, str], teacher: tuple[str, ...], tmp_path: Path
) -> None:
    sweep = (*teacher, *SLOW, "study=moon", "seed=0,1,2")
    process = launch("submitit_slurm", *sweep)
    wait_for(lambda: [*tmp_path.glob("runs/moon/*/checkpoints/last.ckpt")], process)
    scheduler = {"env": {**os.environ, **slurm}, "text": True}
    ids = subprocess.check_output(["squeue", "--noheader", "--array", "--format=%i", "--states=R"], **scheduler).split()
    subprocess.run(["scancel", ids[0]], check=True, **scheduler)
    outcome = outcome_of(process)
    assert outcome.code == 1 and "1 of 3 jobs are not done" in outcome.errors, outcome.errors
    resume(launch, "submitit_slurm", sweep, tmp_path / "runs", n_done=2)


def test_a_requeued_job_of_slurm_goes_on_from_its_checkpoint(
    launch: Any, slurm: dict[str, str], teacher: tuple[str, ...], tmp_path: Path
) -> None:
    process = launch("submitit_slurm", *teacher, *SLOW, "study=moon", "seed=0,1")
    wait_for(lambda: len([*tmp_path.glob("runs/moon/*/checkpoints/last.ckpt")]) == 2, process)
    scheduler = {"env": {**os.environ, **slurm}, "text": True}
    ids = subprocess.check_output(["squeue", "--noheader", "--array", "--format=%i", "--states=R"], **scheduler).split()
    subprocess.run(["scancel", "--signal=USR2", ids[0]], check=True, **scheduler)  # as before a time limit
    subprocess.run(["scontrol", "requeue", ids[1]], check=True, **scheduler)  # as when it is preempted: SIGTERM
    outcome = outcome_of(process, limit_s=500)  # Slurm leaves a requeued job alone for two minutes
    assert outcome.code == 0, outcome.errors
    logs = [path.read_text() for path in tmp_path.glob("runs/.workers/moon/*/*_log.*")]
    assert sum("epoch 1 of 6" in log for log in logs) == sum("epoch 6 of 6" in log for log in logs) == 2, logs


@pytest.mark.parametrize("launcher", APART)
def test_stop_starts_no_further_job(launcher: str, launch: Any, teacher: tuple[str, ...], tmp_path: Path) -> None:
    """The first of six jobs fails for lack of training rows; at most the two that run in parallel with it still run."""
    sweep = (*teacher, "study=moon", "data.labelled=1,20", "seed=0,1,2", "sweep.on_error=stop")
    outcome = outcome_of(launch(launcher, *sweep))
    assert outcome.code == 1, outcome.errors
    assert "failed" in states(tmp_path / "runs").values() and len(states(tmp_path / "runs")) < 6, outcome.errors


def resume(launch: Any, launcher: str, sweep: tuple[str, ...], runs: Path, n_done: int | None = None) -> None:
    """The same command finishes the sweep without repeating finished jobs."""
    before = {path: path.read_bytes() for path in runs.glob("moon/teacher*/status.json") if b'"done"' in path.read_bytes()}
    time.sleep(0.1)
    again = outcome_of(launch(launcher, *sweep))
    assert again.code == 0, again.errors
    assert list(states(runs).values()) == ["done"] * 3
    assert n_done is None or f"3 jobs: {n_done} already done, {3 - n_done} to run" in again.errors, again.errors
    assert {path: path.read_bytes() for path in before} == before

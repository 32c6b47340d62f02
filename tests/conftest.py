"""Shared fixtures: the console script in a separate process, and a guard against network access."""

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.fixtures.preloaded import Preloaded

# The same Hypothesis examples every time; `make test-thorough` draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("other", derandomize=False)
settings.load_profile("same")

pytest_plugins = ["tests.fixtures.composing", "tests.fixtures.models", "tests.fixtures.spans", "tests.fixtures.studies"]

ROOT = Path(__file__).resolve().parents[1]

# Nothing may reach a hub or a tracking server, in this process or in one that a test starts. W&B's service process costs every
# job a second, so only tests of W&B enable it.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core: one thread each, here and in what a test starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not os.environ.get("FINDISTILL_DATA") and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["FINDISTILL_DATA"] = str(ROOT.parent / "shared" / "data")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Exclude what is loaded from later garbage collections: libraries and compositions make each take a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def preloaded() -> Iterator[Preloaded]:
    """The process that test commands are forked from."""
    process = Preloaded()
    yield process
    process.close()


@pytest.fixture
def findistill(preloaded: Preloaded, tmp_path: Path) -> Command:
    """Run the application in `tmp_path` in a separate process; returns its output and exit code."""

    def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        return preloaded.run(["findistill", *arguments], tmp_path, {**os.environ, **environment}, timeout)

    return run


SECRET = "sk-never-to-be-written-0123456789"
COMMAND = (
    "-m", "study=moon", "distill=cls,reg", "data.labelled=52", "shots.k=1", "annotate.limit=20", "trainer.max_epochs=1",
    "data.test=0.02", "evaluate.resamples=50", "report.resamples=50", "evaluate.also=['demo rows=60 test=0.15 labelled=20']",
)  # fmt: skip


@pytest.fixture(scope="session")
def study(preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/` after one sweep of two students, with keys in the environment; all test workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pipeline"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            env = {**os.environ, "OPENAI_API_KEY": SECRET, "WANDB_API_KEY": SECRET, "WANDB_MODE": "offline"}
            result = preloaded.run(["findistill", *COMMAND], folder, env, 500)
            assert result.returncode == 0, result.stderr[-3000:]
            (folder / "printed.txt").write_text(result.stdout + result.stderr)
    return folder / "runs"

"""What every test may use: the console script as a process of its own, and a guard against the network."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing may reach a hub or a tracking server, in this process or in one that a test starts.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline", TOKENIZERS_PARALLELISM="false")
if not os.environ.get("FINDISTILL_DATA") and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["FINDISTILL_DATA"] = str(ROOT.parent / "shared" / "data")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def findistill(tmp_path: Path) -> Command:
    """Run the application in `tmp_path`, as a process of its own; returns what it printed and its exit code."""

    def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "findistill", *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment},
        )  # fmt: skip

    return run


SECRET = "sk-never-to-be-written-0123456789"
COMMAND = (
    "-m", "study=moon", "distill=cls,reg", "data.pool=60", "annotate.limit=40", "trainer.max_epochs=1",
    "evaluate.resamples=50", "report.resamples=50", "evaluate.also=['demo rows=900']",
)  # fmt: skip


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`runs/` after one sweep of two students, with keys in the environment."""
    folder = tmp_path_factory.mktemp("pipeline")
    env = {**os.environ, "OPENAI_API_KEY": SECRET, "WANDB_API_KEY": SECRET, "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", "findistill", *COMMAND], cwd=folder, capture_output=True, text=True, timeout=500, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "printed.txt").write_text(done.stdout + done.stderr)
    yield folder / "runs"
    shutil.rmtree(folder)

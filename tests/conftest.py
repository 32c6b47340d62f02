"""What every test may use: the console script as a process of its own, and a guard against the network."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Nothing may reach a hub or a tracking server, in this process or in one that a test starts.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="offline", TOKENIZERS_PARALLELISM="false")
if not os.environ.get("FINDISTILL_DATA") and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["FINDISTILL_DATA"] = str(ROOT.parent / "shared" / "data")

needs_data = pytest.mark.skipif("FINDISTILL_DATA" not in os.environ, reason="FINDISTILL_DATA is not set")

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

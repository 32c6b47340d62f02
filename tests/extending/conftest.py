"""A third-party package, installed as a user would, into a separate folder."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.preloaded import Preloaded

PACKAGE = Path(__file__).parent / "package"

Extended = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package is installed into."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run([*command, "--target", str(target), str(PACKAGE)], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="session")
def run_extended(preloaded: Preloaded, installed: Path) -> Extended:
    """Run the application in the folder given as first argument, with the package installed."""

    def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, (str(installed), os.environ.get("PYTHONPATH", ""))))
        return preloaded.run(["findistill", *arguments], folder, {**os.environ, "PYTHONPATH": path, **environment}, 300)

    return run


@pytest.fixture
def extended(run_extended: Extended, tmp_path: Path) -> Extended:
    """Run the application in `tmp_path`, with the package installed."""
    return partial(run_extended, tmp_path)

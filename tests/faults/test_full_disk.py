"""A full disk is reported as such, whichever write fails, and leaves no job or artifact that looks complete."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Application, assert_nothing_half_written, states


@pytest.fixture(params=["12k", "28k", "200k", "4m"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of the given size: too small for the data, the tokens, the weights, the tokenizer."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, application: Application, teacher: tuple[str, ...]) -> None:
    for _ in range(2):  # the second time with the files that the first run left
        application(*teacher, f"runs_dir={small_disk}").is_mistake("No space left on device", "Free some space", "runs_dir=DIR")
        assert "done" not in states(small_disk).values()
        assert_nothing_half_written(small_disk)

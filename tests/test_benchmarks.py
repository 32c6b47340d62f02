"""The benchmarks of the endpoint engine run, at a size that says nothing about speed."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, BENCHMARKS / name, *arguments],
        capture_output=True, text=True, check=False, timeout=120, env=os.environ | {"NO_PROXY": "127.0.0.1"},
    ).stdout  # fmt: skip


def test_endpoint_throughput() -> None:
    told = run("endpoint_throughput.py", "--rows", "64", "--env", "")
    assert "findistill" in told and "of the possible 640" in told


def test_annotation_memory() -> None:
    told = run("annotation_memory.py", "--texts", "40")
    assert "20 texts: peak" in told and "40 texts: peak" in told and "growth:" in told

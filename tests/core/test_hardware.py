"""Which device models run on, and what is imported to find out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from findistill.core import hardware


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The simulated file names under /dev, with a torch that could use CUDA."""
    names: list[str] = []
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: (each for each in names if Path(each).match(pattern)))
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, is_initialized=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", torch)
    hardware.device.cache_clear()
    yield names
    hardware.device.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says by its files whether there is a driver")
@pytest.mark.parametrize(
    ("driver", "device"), [("tty", "cpu"), ("nvidia0", "cuda"), ("nvidiactl", "cuda"), ("kfd", "cuda"), ("dxg", "cuda")]
)
def test_torch_is_asked_where_there_may_be_a_gpu(driver: str, device: str, files: list[str]) -> None:
    files.append(driver)
    assert hardware.device() == device


def test_other_systems_ask_torch(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hardware.device() == "cuda"


def test_the_threads_of_a_process_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(hardware, "device", lambda: "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert hardware.describe().endswith(", 1 thread")
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")  # a list for nested regions: ignored
    monkeypatch.setattr(hardware, "cores", lambda: 8)
    assert hardware.describe().endswith(", 8 threads")


@pytest.mark.parametrize(("vendor", "flags", "fast"), [
    ("GenuineIntel", "avx512_bf16", False), ("GenuineIntel", "avx512_bf16 amx_bf16", True), ("AuthenticAMD", "avx512_bf16", True),
    ("AuthenticAMD", "avx2", False), ("", "", False),
])  # fmt: skip
def test_bfloat16_where_it_was_measured_to_be_faster(
    vendor: str, flags: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_proc", lambda _, field: {"flags": flags, "vendor_id": vendor}[field])
    assert hardware.cpu_has_fast_bf16.__wrapped__() is fast

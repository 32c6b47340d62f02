"""The capabilities of this machine. torch, which costs 130 MB and a second, is only loaded if there may be a GPU."""

import importlib
import os
import platform
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from findistill.core.processors import cores


def _proc(file: str, field: str) -> str:
    """The value of the first line of `/proc/<file>` that begins with `field`; empty if there is none."""
    with suppress(OSError), Path("/proc", file).open(encoding="ascii", errors="replace") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
    return ""


@cache
def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32: with AMX, or on AMD with AVX512-BF16.

    AVX512-BF16 alone runs at half AMD's rate on Intel: with the conversions, training takes 1.6 times as long as in float32
    (measured on Emerald Rapids under a hypervisor that hides AMX; on EPYC it takes 0.6 times as long).
    """
    flags = _proc("cpuinfo", "flags").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and _proc("cpuinfo", "vendor_id") == "AuthenticAMD")


def _torch() -> Any:
    return importlib.import_module("torch")


@cache
def device() -> str:
    """`cuda`, `mps` or `cpu`: where in-process models run."""
    # Device files of the GPU drivers: NVIDIA's (an NVMe disk matches, too, and torch decides), AMD's and WSL's.
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in ("nv*", "kfd", "dxg")):
        return "cpu"
    torch = _torch()
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision(setting: str, accelerator: str = "auto") -> str:
    """Resolve `trainer.precision` to `32`, `bf16` or `16` for the current device.

    `auto` is bf16 on GPUs that support it and on processors that multiply it faster than float32, else 32.
    """
    if setting != "auto":
        return setting
    where = "cpu" if accelerator == "cpu" else device()
    if where == "cuda":
        return "bf16" if _torch().cuda.is_bf16_supported() else "32"
    return "bf16" if where == "cpu" and cpu_has_fast_bf16() else "32"


def llm_precision() -> str:
    """`bf16` or `32`: the default precision of an in-process LLM."""
    return "bf16" if device() != "cpu" or cpu_has_fast_bf16() else "32"


def free_memory_gb() -> float:
    """Free memory of the GPU, or of the machine without one, in GB (1e9 bytes)."""
    if device() == "cuda":
        return float(_torch().cuda.mem_get_info()[0]) / 1e9
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if available := _proc("meminfo", "MemAvailable"):
        free = int(available.split()[0]) * 1024
    with suppress(OSError, ValueError):  # a container's limit is often lower; `max` means that there is none
        limit, used = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return free / 1e9


def reset_device_peak() -> None:
    """Reset the GPU's peak memory, if this process has used one."""
    if cuda := _cuda_in_use():
        cuda.reset_peak_memory_stats()


def _cuda_in_use() -> Any:
    """torch.cuda, if this process has used it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_initialized() else None


def device_peak_mb() -> dict[str, float]:
    """`memory/device_peak_mb`: peak GPU memory of tensors since `reset_device_peak`; empty without a GPU."""
    cuda = _cuda_in_use()
    return {"memory/device_peak_mb": cuda.max_memory_allocated() / 1024**2} if cuda else {}


def describe() -> str:
    """The device in words, for tables: `AMD EPYC, 2 threads` or the GPU's name."""
    if device() == "cuda":
        return str(_torch().cuda.get_device_name())
    torch, chosen = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    threads = torch.get_num_threads() if torch else int(chosen) if chosen.isdecimal() else cores()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def assumed_watts() -> float:
    """The power that the device is assumed to draw under load, for energy estimates; it is not measured.

    A GPU's board power by its manufacturer, 300 W for one that is not listed here; 65 W without CUDA.
    """
    if device() != "cuda":
        return 65.0
    name = _torch().cuda.get_device_name()
    boards = {"H200": 700, "H100": 700, "A100": 400, "V100": 300, "A10": 150, "L40": 300, "L4": 72, "T4": 70, "4090": 450}
    return float(next((watts for board, watts in boards.items() if board in name), 300))


def processor() -> str:
    """The processor's name."""
    return _proc("cpuinfo", "model name") or platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Reset the peak resident memory, where the system supports it, and the GPU's peak."""
    # Jobs of a sweep share a process, whose peak would otherwise be that of the largest job so far.
    with suppress(OSError), Path("/proc/self/clear_refs").open("w", encoding="ascii") as refs:
        refs.write("5")
    reset_device_peak()


def peak_memory_mb() -> float:
    """Peak resident memory in MB since the job began (since the process began if the system cannot reset it)."""
    if peak_kb := _proc("self/status", "VmHWM"):
        return int(peak_kb.split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if platform.system() == "Linux" else peak / 1024**2

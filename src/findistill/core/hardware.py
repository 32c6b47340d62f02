"""What this machine is good at."""

import os
import platform
import resource
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch


def _proc(file: str, field: str) -> str:
    """The value of the first line of `/proc/<file>` that begins with `field`; empty where the system has no such line."""
    with suppress(OSError), Path("/proc", file).open(encoding="ascii", errors="replace") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
    return ""


@cache
def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); emulated, it is slower than float32."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(_proc("cpuinfo", "flags").split())


@cache
def device() -> str:
    """`cuda`, `mps` or `cpu`: where in-process models run."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision(setting: str, accelerator: str = "auto") -> str:
    """Turn `trainer.precision` into `32`, `bf16` or `16` for the device at hand.

    `auto` is bf16 on GPUs that have it and on processors that multiply it in hardware, else 32.
    """
    if setting != "auto":
        return setting
    where = "cpu" if accelerator == "cpu" else device()
    if where == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    return "bf16" if where == "cpu" and cpu_has_fast_bf16() else "32"


def llm_precision() -> str:
    """`bf16` or `32`: what an in-process LLM computes in where nothing is set."""
    return "bf16" if device() != "cpu" or cpu_has_fast_bf16() else "32"


def free_memory_gb() -> float:
    """Gigabytes that the device has free, on the GPU, or in the machine's main memory (1e9 bytes)."""
    if device() == "cuda":
        return torch.cuda.mem_get_info()[0] / 1e9
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if available := _proc("meminfo", "MemAvailable"):
        free = int(available.split()[0]) * 1024
    with suppress(OSError, ValueError):  # a container's limit is often less; without one it says `max`
        limit, used = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return free / 1e9


def reset_device_peak() -> None:
    """Forget the GPU's peak memory, where this process has used one."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def device_peak_mb() -> dict[str, float]:
    """`memory/device_peak_mb`: the most that tensors took on the GPU since `reset_device_peak`; nothing without a GPU."""
    return {"memory/device_peak_mb": torch.cuda.max_memory_allocated() / 1024**2} if torch.cuda.is_initialized() else {}


def describe() -> str:
    """The device in words, for tables: `AMD EPYC, 2 threads` or the GPU's name."""
    if device() == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def assumed_watts() -> float:
    """What the device is assumed to draw while it works, for estimates of energy: nothing is measured.

    A GPU's board power as its maker states it; 300 W for one that is not listed here, 65 W for a processor.
    """
    if device() != "cuda":
        return 65.0
    name = torch.cuda.get_device_name()
    boards = {"H200": 700, "H100": 700, "A100": 400, "V100": 300, "A10": 150, "L40": 300, "L4": 72, "T4": 70, "4090": 450}
    return float(next((watts for board, watts in boards.items() if board in name), 300))


def processor() -> str:
    """The processor's name."""
    return _proc("cpuinfo", "model name") or platform.processor() or platform.machine()


def reset_peak_memory() -> None:
    """Forget the peak of the resident memory, and the GPU's, where this system can."""
    # Jobs of a sweep share a process, whose peak would otherwise be that of the largest job so far.
    with suppress(OSError), Path("/proc/self/clear_refs").open("w", encoding="ascii") as refs:
        refs.write("5")
    reset_device_peak()


def peak_memory_mb() -> float:
    """Peak resident memory in MB since the job began (since the process began where the system cannot reset it)."""
    if peak_kb := _proc("self/status", "VmHWM"):
        return int(peak_kb.split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if platform.system() == "Linux" else peak / 1024**2

"""What this machine is good at."""

import os
import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware (AMX or AVX512-BF16); emulated, it is slower than float32."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as info:
            flags = next((line for line in info if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


@cache
def device() -> str:
    """`cuda`, `mps` or `cpu`: where in-process models run."""
    import torch

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
        import torch

        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    return "bf16" if where == "cpu" and cpu_has_fast_bf16() else "32"


def llm_precision() -> str:
    """`bf16` or `32`: what an in-process LLM computes in where nothing is set."""
    return "bf16" if device() != "cpu" or cpu_has_fast_bf16() else "32"


def free_memory_gb() -> float:
    """Gigabytes that the device has free, on the GPU, or in the machine's main memory (1e9 bytes)."""
    import torch

    if device() == "cuda":
        return torch.cuda.mem_get_info()[0] / 1e9
    free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, StopIteration), Path("/proc/meminfo").open(encoding="ascii", errors="replace") as lines:
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    with suppress(OSError, ValueError):  # a container's limit is often less; without one it says `max`
        limit, used = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        free = min(free, int(limit) - int(used))
    return free / 1e9


def reset_device_peak() -> None:
    """Forget the GPU's peak memory, where this process has used one."""
    if "torch" in sys.modules and device() == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def device_peak_mb() -> dict[str, float]:
    """`memory/device_peak_mb`: the most that tensors took on the GPU since `reset_device_peak`; nothing without a GPU."""
    if "torch" not in sys.modules or device() != "cuda":
        return {}
    import torch

    return {"memory/device_peak_mb": torch.cuda.max_memory_allocated() / 1024**2}


def describe() -> str:
    """The device in words, for tables: `AMD EPYC, 2 threads` or the GPU's name."""
    import torch

    if device() == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def processor() -> str:
    """The processor's name."""
    name = platform.processor() or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as info:
            model = next((line for line in info if line.startswith("model name")), "")
        return model.partition(":")[2].strip() or name
    except OSError:
        return name

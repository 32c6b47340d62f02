"""What this machine is good at."""

import platform
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

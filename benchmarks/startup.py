"""How long a user waits for help and for a configuration error: medians over five complete processes.

    python benchmarks/startup.py

Exits with 1 if help takes 0.5 s or longer, or an error 1.0 s or longer.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "findistill --help": (["--help"], 0.5),
    "findistill --cfg job": (["--cfg", "job"], 1.0),
    "an unknown setting": (["trainer.lr=1"], 1.0),
    "an unknown option": (["student=nothing"], 1.0),
    "a rule broken": (["distill.min_agreement=9"], 1.0),
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "findistill", *arguments], capture_output=True, check=False)
    return time.perf_counter() - started


def main() -> int:
    slow = 0
    for name, (arguments, limit) in COMMANDS.items():
        seconds(arguments)  # warms up the disk cache
        median = statistics.median(seconds(arguments) for _ in range(5))
        slow += median >= limit
        print(f"{name:<24} {median:.2f} s (limit {limit:.1f} s)")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())

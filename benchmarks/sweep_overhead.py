"""The overhead of a sweep: seconds per job, memory growth, and the time it takes to recognise that all jobs are finished.

    python benchmarks/sweep_overhead.py [--jobs 500] [--out experiments/sweeps/overhead.csv] [OVERRIDE ...]

The jobs annotate a few texts with regular expressions, which takes next to no time; each job has a different number of texts.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RULES = "llm.rules={positive: [gain], negative: [loss], neutral: [report]}"
JOB = ("stage=annotate", "llm=rules", RULES, "data=csv", "data.path=mine.csv", "data.label_column=label", "logger=none")
ROWS = "".join(f"Company {n} tells of a {word} in {1900 + n},{label}\n" for n in range(400)
               for word, label in (("gain", "positive"), ("loss", "negative"), ("report", "neutral")))  # fmt: skip


def resident_mb(pid: int) -> float:
    """Current resident memory of a process."""
    try:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) / 1024 if match else 0.0


def sweep(folder: Path, jobs: int, overrides: list[str]) -> tuple[float, list[tuple[float, int, float]]]:
    """Seconds of a sweep over `annotate.limit`, and samples: seconds since its start, jobs done, MB of the command's process."""
    command = ["-m", *JOB, f"annotate.limit=range(2,{jobs + 2})", "study=overhead", "sweep.report=false", *overrides]
    started, samples = time.perf_counter(), []
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen([sys.executable, "-m", "findistill", *command], cwd=folder, stdout=errors, stderr=errors)
        while process.poll() is None:
            time.sleep(0.5)
            done = len([*folder.glob("runs/overhead/*/metrics.json")])
            samples.append((time.perf_counter() - started, done, resident_mb(process.pid)))
    if process.returncode:
        sys.exit((folder / "errors.txt").read_text()[-3000:])
    return time.perf_counter() - started, samples


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--out", type=Path, help="csv file")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mine.csv").write_text(f"text,label\n{ROWS}")
        seconds, samples = sweep(folder, options.jobs, options.overrides)
        first = next((sample for sample in samples if sample[1]), samples[-1])
        tenth = next((sample for sample in samples if sample[1] >= options.jobs / 10), samples[-1])
        measured = {
            "jobs": (options.jobs, "jobs"),
            "sweep": (seconds, "s"),
            "first_job": (first[0], "s, planning included"),
            "further_job": ((samples[-1][0] - first[0]) / max(1, options.jobs - first[1]), "s"),
            "memory": (tenth[2], "MB, after a tenth of the jobs"),
            "growth": (max(memory for _, _, memory in samples) - tenth[2], "MB, until the end"),
            "recognition": (sweep(folder, options.jobs, options.overrides)[0], "s, the finished sweep again"),
        }
    rows = [(key, f"{value:.3g}", unit) for key, (value, unit) in measured.items()]
    for key, value, unit in rows:
        print(f"{key}: {value} {unit}")
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("key", "value", "unit"), *rows])


if __name__ == "__main__":
    main()

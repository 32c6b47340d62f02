"""One sweep of 24 jobs under several launchers: wall time compared with one process, the same table, annotated once.

    python benchmarks/launchers.py [--seeds 3] [--out FILE] "hydra/launcher=joblib hydra.launcher.n_jobs=2" ...

Students by hard labels and by vote shares, at agreement thresholds 5 to 8, with `--seeds` seeds, on the demo corpus, annotated by
TF-IDF. One process runs the sweep first; then each argument, which is a launcher with its settings, in a folder of its own. A
Ray cluster or Slurm has to run already: `hydra.launcher.address=...`, `SLURM_CONF`. Every job has one thread.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SWEEP = (
    "stage=student", "study=launchers", "data=demo", "llm=tfidf", "annotate.samples=8",
    "distill=cls,reg", "distill.min_agreement=5,6,7,8", "student=tiny_2l_128d",
    "logger=none", "evaluate.latency=false", "evaluate.resamples=20", "report.resamples=20",
)  # fmt: skip
OBJECTIVES_AND_THRESHOLDS = 8
COLUMNS = ("launcher", "jobs", "steps", "seconds", "of_one_process", "annotations", "same_table")
# Columns that differ between two runs of the same job: how long, with how much memory, where.
MEASURED = re.compile(r".*(_s|_ms|_mb|usd.*|device|throughput.*)")


def run(launcher: Sequence[str], overrides: Sequence[str], folder: Path) -> tuple[float, int, list[dict[str, str]]]:
    """Seconds of the sweep with its report, number of annotation artifacts, and the table without measured columns."""
    command = [sys.executable, "-m", "findistill", "-m", *SWEEP, *overrides, *launcher]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(launcher) or 'one process'}: exit status {done.returncode}\n{done.stderr[-3000:]}")
    with (folder / "runs/launchers/table.csv").open(newline="", encoding="utf-8") as file:
        table = [{key: value for key, value in row.items() if not MEASURED.fullmatch(key)} for row in csv.DictReader(file)]
    return seconds, len([*folder.glob("runs/.artifacts/annotate-*/artifact.json")]), table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launchers", nargs="+", help="settings of one launcher, separated by spaces")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="minimum optimizer steps of a job")
    parser.add_argument("--out", type=Path, help="csv file")
    options = parser.parse_args()
    rows, settings = [], [f"student.min_steps={options.steps}", f"seed={','.join(map(str, range(options.seeds)))}"]
    for launcher in ("", *options.launchers):
        with tempfile.TemporaryDirectory() as name:
            seconds, annotations, table = run(launcher.split(), settings, Path(name))
        if not rows:
            alone, expected = seconds, table
        jobs = OBJECTIVES_AND_THRESHOLDS * options.seeds
        shown = re.sub(r"address=\S+", "address=HOST:PORT", launcher) or "one process"
        rows.append((shown, jobs, options.steps, f"{seconds:.1f}", f"{seconds / alone:.3f}", annotations, table == expected))
        print(", ".join(f"{column} {value}" for column, value in zip(COLUMNS, rows[-1], strict=True)), flush=True)
    if options.out:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()

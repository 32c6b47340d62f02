"""The runs of a study, read from its folder."""

from pathlib import Path
from typing import Any

import pandas as pd

from findistill.config.fields import result_settings
from findistill.config.restore import read_config
from findistill.core import run_folder
from findistill.core.files import read_json
from findistill.report import parts
from findistill.report.methods import Run


def collect(folder: Path) -> tuple[list[Run], list[dict[str, Any]]]:
    """The scored jobs of a study, and the jobs that are not done: `job` (its name) and `error` (one line)."""
    runs: list[Run] = []
    failed = []
    for job in run_folder.jobs(folder):
        state = run_folder.status(job)
        if state.get("state") != "done":
            failed.append({"job": job.name, "error": state.get("error") or f"still {state.get('state', 'starting')}"})
        elif (job / "predictions.parquet").exists():
            run = read_run(job, state)
            # Few-shot jobs of several seeds that draw nothing at random are one run.
            if not any((run.method, run.seed, run.config) == (one.method, one.seed, one.config) for one in runs):
                runs.append(run)
    return sorted(runs, key=lambda run: parts.of_kind(run.kind).listed_last), failed


def settings_of(folder: Path) -> dict[str, Any]:
    """A job's settings that can change a result, by section, as plain values."""
    config = read_config(folder / "config.yaml")
    return {str(name): result_settings(config[name], references=True) for name in config}


def read_run(folder: Path, state: dict[str, Any]) -> Run:
    """A done job as its stage's report part describes it."""
    config = settings_of(folder)
    metrics = read_json(folder / "metrics.json")
    part = parts.of_stage(config["stage"]["name"])
    seed, settings = part.identity(config)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    status = {**state, **part.status(config, folder)}
    return Run(part.name(config, metrics), part.kind, seed, settings, metrics, predictions, folder, status)

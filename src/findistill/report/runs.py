"""The runs of a study, read from its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from findistill.config.fields import result_settings
from findistill.config.restore import read_config
from findistill.core import run_folder, termination
from findistill.core.files import read_json
from findistill.core.hashing import digest
from findistill.errors import UserError
from findistill.report import parts
from findistill.report.methods import Run, checked, deciding

Listed = list[dict[str, Any]]  # jobs: `job` (its name) and `error` (one line)


class Entry(NamedTuple):
    """A job of a study, whatever its state.

    Attributes:
        status: the content of its status.json.
        config: its settings that can change a result; empty if they cannot be read.
        run: its results for comparisons; None if there is nothing to compare.
    """

    folder: Path
    status: dict[str, Any]
    config: dict[str, Any]
    run: Run | None


class Jobs(NamedTuple):
    """The jobs of a study: scored ones; those not done; those left out (pruned, or with nothing to compare); and all."""

    runs: list[Run]
    failed: Listed
    left_out: Listed
    entries: list[Entry]


def collect(folder: Path) -> Jobs:
    """The jobs of a study. One whose files cannot be read is left out, with the reason."""
    runs: list[Run] = []
    failed: Listed = []
    left_out: Listed = []
    entries: list[Entry] = []
    read = [(job, run_folder.status(job), _settings_where_readable(job)) for job in run_folder.jobs(folder)]
    repeated = superseded(read)
    for job, state, config in read:
        run = None
        if later := repeated.get(job):
            left_out.append(
                {"job": job.name, "error": f"run again later as {later.name}, after its data, weights or code had changed"}
            )
        elif state.get("state") == "pruned":
            left_out.append({"job": job.name, "error": state["error"]})
        elif state.get("state") != "done":
            failed.append({"job": job.name, "error": state.get("error") or f"still {state.get('state', 'starting')}"})
        else:
            try:
                run = _comparable(job, state, config)
            except Exception as error:  # whatever is wrong with one job's files, the others are reported
                termination.check(error)
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                left_out.append({"job": job.name, "error": (reason.splitlines() or [""])[0]})
        entries.append(Entry(job, state, config or {}, run))
        # Few-shot jobs of several seeds that draw nothing at random are one run.
        if run and not any((run.method, run.seed, run.config) == (one.method, one.seed, one.config) for one in runs):
            runs.append(run)
    return Jobs(sorted(runs, key=lambda run: parts.of_kind(run.kind).listed_last), failed, left_out, entries)


def superseded(jobs: Sequence[tuple[Path, dict[str, Any], dict[str, Any] | None]]) -> dict[Path, Path]:
    """Done jobs with the settings of a job that was run later, which therefore read other data, weights or code; and the latter.

    Args:
        jobs: folder, content of status.json and settings of each.
    """
    ended = {job: state.get("ended") or "" for job, state, config in jobs if config and state.get("state") == "done"}
    groups: dict[str, list[Path]] = {}
    for job, _, config in jobs:
        if job in ended and config:
            groups.setdefault(digest({**deciding(config), "seed": config.get("seed")}), []).append(job)
    latest = {job: max(group, key=ended.__getitem__) for group in groups.values() for job in group}
    return {job: later for job, later in latest.items() if ended[job] < ended[later]}


def _settings_where_readable(job: Path) -> dict[str, Any] | None:
    """A job's settings; None if it failed before it had any, or they are damaged."""
    try:
        return settings_of(job)
    except Exception as error:
        termination.check(error)
        return None


def _comparable(job: Path, state: dict[str, Any], config: dict[str, Any] | None) -> Run | None:
    """Like `read_run`, but checks that the job can be compared with others."""
    run = read_run(job, state, config)
    if run and parts.of_kind(run.kind).classifies:
        checked(run)
    return run


def settings_of(folder: Path) -> dict[str, Any]:
    """A job's settings that can change a result, by section, as plain values."""
    config = read_config(folder / "config.yaml")
    return {str(name): result_settings(config[name], references=True) for name in config}


def read_run(folder: Path, state: dict[str, Any], config: dict[str, Any] | None = None) -> Run | None:
    """A done job as its stage's report part describes it; None for a stage that creates texts or files and has no scores.

    Raises:
        UserError: it has no predictions; and whatever reading a damaged file raises.
    """
    config = config or settings_of(folder)
    part = parts.of_stage(config["stage"]["name"])
    if not (folder / "predictions.parquet").exists():
        if part not in parts.registered().values() or not part.scores(config):
            return None
        without = (
            "its texts have no gold labels" if config["stage"]["name"] == "annotate" else "the file is missing: run the job again"
        )
        raise UserError(f"no predictions.parquet: {without}")
    metrics = read_json(folder / "metrics.json")
    seed, settings = part.identity(config)
    draw = settings["data"].get("labelled_seed")
    if draw is not None and not part.scored_on_training_rows:  # draws of labelled rows are repeats, too
        settings = {**settings, "data": {**settings["data"], "labelled_seed": None}}
        seed = draw if draw == seed else f"{seed}/{draw}"
    predictions = pd.read_parquet(folder / "predictions.parquet")
    status = {**state, **part.status(config, folder)}
    return Run(part.name(config, metrics), part.kind, seed, settings, metrics, predictions, folder, status, draw)

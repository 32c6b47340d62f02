"""The baselines of a study as runs of its report."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from findistill.config.expand import expand
from findistill.config.restore import read_config
from findistill.core.files import read_json
from findistill.core.hashing import digest
from findistill.core.store import Store
from findistill.errors import UserError
from findistill.methods.annotate.steps import annotations
from findistill.methods.baselines.steps import LEARNERS, Baseline, baselines
from findistill.report import parts
from findistill.report.methods import Run
from findistill.report.parts import BASELINE

log = logging.getLogger(__name__)

SECTIONS = ("data", "llm", "prompt", "shots", "annotate")  # shown with a baseline


def baseline_runs(runs: Sequence[Run], kinds: Sequence[str], store: Store) -> list[Run]:
    """The baselines of all jobs, without duplicates. One that cannot be created is logged, with the reason."""
    of_key: dict[str, Run | None] = {}  # None: it cannot be created
    for run in _with_baselines(runs):
        config = _config(run)
        for step in (step for step in baselines(config, kinds) if step.key not in of_key):
            try:
                of_key[step.key] = _run(step, run, config, store)
            except UserError as error:
                of_key[step.key] = None
                log.info("%s", str(error).splitlines()[0])
    return without_repeats([run for run in of_key.values() if run is not None])


def without_repeats(runs: Sequence[Run]) -> list[Run]:
    """The runs, in order, without those that repeat another on its rows: jobs may differ in their further test sets alone.

    Of equal runs, the one that is scored on most test sets stays.
    """
    unique: dict[str, Run] = {}
    for run in runs:
        key = digest([run.method, run.seed, run.config, run.predictions["id"].astype(str).tolist()])
        unique[key] = max(unique.get(key, run), run, key=lambda one: len(one.metrics))
    return list(unique.values())


def _with_baselines(runs: Sequence[Run]) -> list[Run]:
    """The runs that get baselines."""
    own = [run for run in runs if parts.of_kind(run.kind).own_baselines]
    if any(run.kind == "fewshot" and run.config["shots"]["k"] for run in own):
        # The number of neighbours is that of demonstrations in the prompts.
        own = [run for run in own if run.kind != "fewshot" or run.config["shots"]["k"]]
    return own or [run for run in runs if run.kind in LEARNERS]


def _config(run: Run) -> Any:
    assert run.folder is not None
    return expand(cast(Any, read_config(run.folder / "config.yaml")))


def _run(step: Baseline, run: Run, config: Any, store: Store) -> Run:
    if step.kind == "teacher":
        if not all(store.exists(parent) for role, parent in step.inputs.items() if role.startswith("model")):
            raise UserError(f"{step.title()}: not in the report, since a teacher's artifact no longer exists")
        settings: dict[str, Any] = {name: run.config[name] for name in ("data", "teacher", "trainer")}
        settings |= {"distill": {"teacher": config.distill.teacher}, "augment": {"use": config.augment.use}}
        kind, status = "teacher", {"teacher": run.status["teacher"]}
    elif step.kind == "encoder":
        settings = {name: run.config[name] for name in ("data", "student", "trainer", "augment") if name in run.config}
        kind, status = BASELINE, {}
    else:
        settings = {name: run.config[name] for name in SECTIONS if name in run.config} | {"k": step.k}
        kind, status = BASELINE, {}
    own = step.settings()
    if limit := own["limits"].get("fewshot"):
        settings["fewshot"] = {"limit": limit}
    if own["label_map"]:
        settings["evaluate"] = {"label_map": own["label_map"]}
    folder = store.build(step)
    predictions = pd.read_parquet(folder / "predictions_test.parquet")
    draw = config.data.labelled_seed
    seed = run.seed if step.kind == "encoder" else draw
    return Run(step.title(), kind, seed, settings, read_json(folder / "metrics.json"), predictions, folder, status, draw)


def votes_of_students(runs: Sequence[Run], store: Store) -> pd.DataFrame | None:
    """The votes on the students' training texts, of the first student that has an annotator."""
    for run in runs:
        if run.kind == "student" and run.folder is not None:
            config = _config(run)
            if config.distill.source == "annotator":
                return pd.read_parquet(store.build(annotations(config)) / "annotations.parquet")
    return None

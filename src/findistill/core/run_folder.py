"""The folder of a job: where it lies, whether it is done, what it measured. Light, as planning reads nothing else of a job."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.config.fields import result_settings
from findistill.core.files import read_json
from findistill.core.step import Step, changed_files, sections_read
from findistill.errors import UserError

if TYPE_CHECKING:
    from findistill.schema import Config


def sections(config: "Config", step: Step) -> dict[str, Any]:
    """The part of the configuration that the job's graph reads: its stage, and sections without runtime-only settings."""
    return {"stage": config.stage.name, **{name: result_settings(config[name], references=True) for name in sections_read(step)}}  # type: ignore[index]


def folder_of(config: "Config", step: Step, overrides: Sequence[str]) -> Path:
    """`runs/<study>/<job>`: a readable slug of the overrides and the beginning of the key of the job's last step.

    The key alone identifies the job: the same settings reached by another command find the same folder.
    """
    study = study_folder(config)
    key = step.key[:8]
    if folders := sorted(study.glob(f"*-{key}")):
        return folders[0]
    # Nothing that Hydra's grammar would want quoted: a run folder is itself a value of `evaluate.model`.
    parts, reads = [], sections_read(step)
    for override in sorted(overrides):
        name, _, value = override.lstrip("+~").partition("=")
        # Only what the graph reads names its jobs: not where they go or how they are tracked.
        if name.partition(".")[0] in reads:
            parts.append(f"{name.rsplit('.', 1)[-1]}_{value}")
    slug = re.sub(r"[^\w.+-]+", "_", "-".join([config.stage.name, *parts]))
    return study / f"{slug[:100]}-{key}"


def what_changed(folder: Path, step: Step) -> str | None:
    """One line where a done job of this study has the same settings but saw other content of its files; else None."""
    for path in sorted(folder.parent.glob("*/lineage.json")):
        if is_done(path.parent):
            with suppress(OSError, ValueError, KeyError):
                if names := changed_files(read_json(path), step.lineage()):
                    return f"{', '.join(names)} changed since {path.parent.name}: running again"
    return None


def study_folder(config: "Config") -> Path:
    return Path(config.runs_dir) / config.study


def status(folder: Path) -> dict[str, Any]:
    """A job's `status.json`, or an empty dict where there is none to read."""
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(folder / "status.json"))
    return {}


def is_done(folder: Path) -> bool:
    return status(folder).get("state") == "done"


def objective(config: "Config", folder: Path) -> float | None:
    """The metric of a done job that a hyper-parameter search optimises.

    `objective` names it; by default it is the monitored validation score (`trainer.monitor`), where the stage has one.

    Raises:
        UserError: `objective` names a metric that the job does not have.
    """
    metrics = read_json(folder / "metrics.json")
    name = config.objective or config.trainer.monitor
    if config.objective and name not in metrics:
        names = sorted(key for key in metrics if key.startswith(("val/", "test/")) and not key.endswith(("_lo", "_hi")))
        raise UserError(f"objective={name}: {folder} has no such metric; it has {', '.join(names)}")
    return metrics.get(name)

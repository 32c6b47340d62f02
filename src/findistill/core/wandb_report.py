"""A study's own W&B run: the table, figures and page of its report, with its jobs' predictions as inputs."""

import logging
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import wandb

from findistill import __version__
from findistill.core import run_folder, wandb_artifacts
from findistill.core.files import read_json, write_json
from findistill.core.hashing import digest
from findistill.core.store import Store
from findistill.core.wandb_run import Mode, connect, job_id, start

if TYPE_CHECKING:
    from findistill.schema import Config

log = logging.getLogger(__name__)

SENT = "wandb/report.json"  # in the study's folder: the version of the report that was sent


def send(config: "Config", folder: Path, settings: Any, *, online: bool) -> None:
    """Send the report in a study's folder, each version once; all versions go to the same run."""
    folder = folder.resolve()
    record = read_json(folder / run_folder.REPORT)
    version = digest([record["jobs"], {name: entry[0] for name, entry in record["files"].items()}])
    before = {}
    with suppress(OSError, ValueError):
        before = read_json(folder / SENT)
    if before.get("version") == version:
        return

    def begin(mode: Mode) -> Any:
        return start(
            folder, settings, mode, group=config.study, name=f"{config.study} report", id=job_id(config.study, "report"),
            job_type="report", tags=["report", *settings["tags"]], notes=settings["notes"],
            config={"study": config.study, "jobs": sorted(record["jobs"]), "findistill": {"version": __version__}},
            resume="allow" if before else None, settings={"x_disable_stats": True},
        )  # fmt: skip

    connection = connect(online, begin)
    run = connection.run
    connection.attempt(lambda: run.log(_content(folder, with_page=settings["texts"] or not config.report.get("texts"))))  # type: ignore[attr-defined]
    if (kind := settings["artifacts"]) != "none":
        store = Store(Path(config.runs_dir) / ".artifacts")
        versions = wandb_artifacts.Versions(store, with_files=kind == "files", texts=settings["texts"])
        outputs = [version for job in record["jobs"] for version in versions.outputs_of(folder / job)]
        for used in (version for version in outputs if version.type == "predictions"):
            connection.attempt(partial(wandb_artifacts.publish, run, used, used=True))
        page = _report(config.study, folder, record, version, with_files=kind == "files")
        connection.attempt(lambda: wandb_artifacts.publish(run, page, used=False))
    connection.finish(0)
    if connection.complete:
        write_json(folder / SENT, {"version": version, "id": run.id, "url": None if run.offline else run.url})


def _content(folder: Path, *, with_page: bool) -> dict[str, Any]:
    """The table, the figures and the HTML page."""
    content: dict[str, Any] = {"report/table": wandb.Table(dataframe=pd.read_csv(folder / "table.csv"))}
    content |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("figures/*.png"))}
    if with_page:
        content["report/page"] = wandb.Html((folder / "report.html").read_text(encoding="utf-8"), inject=False)
    return content


def _report(study: str, folder: Path, record: Any, version: str, *, with_files: bool) -> wandb_artifacts.Version:
    hashes = {name: entry[:2] for name, entry in record["files"].items()}
    files = {name: folder / name for name in record["files"]} if with_files else {}
    metadata = {"key": version, "study": study, "jobs": sorted(record["jobs"]), "files": hashes}
    return wandb_artifacts.Version("report", wandb_artifacts.readable(f"{study}-report"), version, metadata, files)

"""What a study sends to W&B: logged offline by the real client, sent by the real `wandb sync`, read by a loopback server."""

import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from findistill.config.validate import validate
from findistill.core import job as jobs
from findistill.core.closing import sync_line
from findistill.core.files import write_json
from findistill.core.hashing import seal
from findistill.core.run_folder import REPORT, done_jobs
from findistill.core.step import ModelFolder, Step
from findistill.core.store import Work
from findistill.core.tracking import track_report
from findistill.errors import UserError
from tests.core.test_job import composed
from tests.fixtures.wandb_server import WandbServer, serving

TEXT = "a bakery of which nobody outside may read"
KEY = "sk-never-to-be-sent-0123456789"
LABELS = ["x", "y"]
PREDICTED = pd.DataFrame(
    {"id": ["1", "2"], "text": [TEXT] * 2, "label": LABELS, "predicted": ["x", "x"], "p_x": [0.9, 0.8], "p_y": [0.1, 0.2]}
)
PANELS = {
    "per_class": pd.DataFrame(
        {"label": LABELS, "precision": [0.5, 0.0], "recall": [1.0, 0.0], "f1": [0.67, 0.0], "support": [1, 1]}
    ),
    "reliability": pd.DataFrame({"confidence": [0.8, 0.9], "accuracy": [0.0, 1.0], "rows": [1, 1]}),
}

PER_LABEL = pd.DataFrame({"label": LABELS, "precision": [0.5, 0.0], "recall": [1.0, 0.0], "f1": [0.67, 0.0], "spans": [1.0, 1.0]})


class Texts(Step):
    name = "data"

    def run(self, work: Work) -> None:
        PREDICTED[["id", "text"]].to_parquet(work.folder / "texts.parquet")
        write_json(work.folder / "card.json", {"name": "bakeries", "licence": "cc-by-4.0", "origin": str(work.folder)})

    def settings(self) -> dict[str, Any]:
        return {"rows": len(PREDICTED)}

    @property
    def config(self) -> Any:
        return self.whole.data


class Answers(Step):
    name = "annotate"

    def parents(self) -> dict[str, Step]:
        return {"data": Texts(self.whole)}

    def run(self, work: Work) -> None:
        PREDICTED.to_parquet(work.folder / "annotations.parquet")
        write_json(work.folder / "summary.json", {"requests": 7, "cost_usd": 0.25})
        for logger in work.loggers:
            logger.log_metrics({"annotation/responses": 2.0, "annotation/usd": 0.25}, step=2)


class Small(Step):
    """A stage that trains for two epochs; with `cut`, it fails after the first."""

    name = "student"
    reads = ("seed", "data")
    cut = False

    def parents(self) -> dict[str, Step]:
        return {"data": Texts(self.whole), "annotations": Answers(self.whole)}

    def run(self, job: Any) -> None:
        [logger, *_] = job.tracker.lightning_loggers()
        for epoch, score in enumerate([0.75, 0.5]):
            logger.log_metrics({"train/loss": 1.0, "lr-AdamW": 0.1, "train/grad_norm": 2.0}, step=epoch)
            logger.log_metrics({"val/macro_f1": score, "epoch": epoch}, step=epoch)
            if self.cut:
                raise UserError("the disk is full")
        (job.folder / "model").mkdir()
        (job.folder / "model" / "weights.bin").write_bytes(b"weights")
        PREDICTED.to_parquet(job.folder / "predictions.parquet")
        job.tracker.predictions(PREDICTED, LABELS, PANELS)
        job.tracker.per_label({"val": PER_LABEL, "test": PER_LABEL})
        job.metrics |= {"test/accuracy": 0.5, "val/macro_f1": 0.75}


class Scored(Small):
    """Another stage, which evaluates a job's model."""

    name = "evaluate"

    def __init__(self, config: Any, model: Path) -> None:
        super().__init__(config)
        self.model = model

    def parents(self) -> dict[str, Step]:
        return {"data": Texts(self.whole), "model": ModelFolder(str(self.model), self.model.rglob("*.bin"))}

    def run(self, job: Any) -> None:
        PREDICTED.to_parquet(job.folder / "predictions.parquet")


def run(config: Any, step: Step, name: str) -> Path:
    folder = Path(config.runs_dir) / config.study / name
    with jobs.running(config, step, folder) as job:
        step.run(job)
    return folder


def report(config: Any, study: Path) -> None:
    """Write the files of a report as `stage=report` does."""
    (study / "figures").mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(study / "figures" / "comparison.png")
    (study / "table.csv").write_text("method,accuracy\nCLS,0.5\n")
    (study / "report.html").write_text("<h1>moon</h1>")
    files = seal(study, ["figures/comparison.png", "table.csv", "report.html"])
    write_json(study / REPORT, {"jobs": done_jobs(study), "files": files})
    track_report(config, study)


def sync(study: Path, server: WandbServer) -> None:
    """Run the command that the log line suggests."""
    line = sync_line(study)
    assert line
    command = shlex.split(line.partition(": ")[2])
    program = str(Path(sys.executable).with_name(command[0]))
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE" and "proxy" not in name.lower()}
    environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
    result = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "Finished syncing" in result.stdout + result.stderr, result.stdout + result.stderr


@dataclass(frozen=True)
class Sent:
    server: WandbServer
    study: Path
    runs: Mapping[str, str]  # name at W&B -> id

    def config(self, name: str) -> dict[str, Any]:
        config = json.loads(self.server.runs[self.runs[name]]["config"])
        return {key: entry["value"] for key, entry in config.items()}

    def columns(self, name: str) -> set[str]:
        return {key for row in self.server.history[self.runs[name]] for key in row}

    @property
    def everything(self) -> bytes:
        return b"".join([*self.server.requests, *self.server.files.values()])


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """A study of three jobs, one of them failed and rerun, and its report; synced twice, the second time without new data."""
    root = tmp_path_factory.mktemp("sent")
    own = ("logger=wandb", "study=moon", f"runs_dir={root}/runs", "logger.wandb.mode=offline", "logger.wandb.entity=desk")
    options = ("logger.wandb.tags=[pilot]", "logger.wandb.notes=first try")
    study = root / "runs" / "moon"
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("WANDB_API_KEY", KEY)
        config = composed(*own, *options, "llm=endpoint", "llm.model=m", f"llm.base_url=https://me:{KEY}@host/v1")
        run(config, Small(config), "first")
        again = composed(*own, "seed=1")
        cut = Small(again)
        cut.cut = True
        with pytest.raises(UserError):
            run(again, cut, "second")
        run(again, Small(again), "second")
        other = composed(*own, "stage=evaluate", "evaluate.model=first")
        run(other, Scored(other, study / "first" / "model"), "scored")
        report(again, study)
        before = len(list(study.glob("wandb/offline-run-*")))
        report(again, study)
        assert before == len(list(study.glob("wandb/offline-run-*"))) == 1
        sync(study, server)
        assert sync_line(study) is None
        yield Sent(server, study, {fields["displayName"]: name for name, fields in server.runs.items()})


def test_the_graph_goes_from_data_to_the_report(sent: Sent) -> None:
    def keys(kind: str) -> set[str]:
        return {one for pair in sent.server.edges() for one in pair if one.startswith(f"{kind}:")}

    [data], [votes], [page] = keys("dataset"), keys("annotations"), keys("report")
    first, second, scored = (
        json.loads((sent.study / name / "status.json").read_text())["key"] for name in ("first", "second", "scored")
    )
    students = {f"{kind}:{key}" for kind in ("model", "predictions") for key in (first, second)}
    assert sent.server.edges() == {
        (data, "run:annotate"), ("run:annotate", votes), (data, "run:student"), (votes, "run:student"),
        *(("run:student", one) for one in students), (data, "run:evaluate"), (f"model:{first}", "run:evaluate"),
        ("run:evaluate", f"predictions:{scored}"), *((f"predictions:{key}", "run:report") for key in (first, second, scored)),
        ("run:report", page),
    }  # fmt: skip


def test_a_version_is_named_by_its_key_and_holds_hashes(sent: Sent) -> None:
    by_name = {each["artifactCollectionName"]: each for each in sent.server.artifacts.values()}
    assert {"dataset-demo", "annotations-demo", "moon-student-model", "moon-student-predictions", "moon-report"} <= set(by_name)
    votes = by_name["annotations-demo"]
    metadata = json.loads(votes["metadata"])
    [folder] = (sent.study.parent / ".artifacts").glob("annotate-*[0-9a-f]")
    assert folder.name == f"annotate-{metadata['key']}" and metadata["summary"] == {"requests": 7, "cost_usd": 0.25}
    assert {alias["alias"] for alias in votes["aliases"]} >= {metadata["key"][:8]}
    assert len(metadata["files"]["annotations.parquet"][0]) == 64
    card = json.loads(by_name["dataset-demo"]["metadata"])["card"]
    assert card == {"name": "bakeries", "licence": "cc-by-4.0"} == sent.config("first")["dataset_card"]


def test_a_run_says_what_it_is(sent: Sent) -> None:
    fields, config = sent.server.runs[sent.runs["first"]], sent.config("first")
    assert fields["groupName"] == "moon" and fields["jobType"] == "student" and fields["notes"] == "first try"
    assert fields["tags"][:2] == ["student", "demo"] and fields["tags"][-1] == "pilot"
    assert fields["commit"] == (jobs.git_commit() or "").removesuffix("-dirty") and len(fields["commit"]) == 40
    assert config["findistill"]["key"] and config["seed"] == 0 and config["logger"]["wandb"]["entity"] == "desk"
    [other] = [each for each in sent.server.runs.values() if each["jobType"] == "annotate"]
    assert other["groupName"] == "moon"


def test_curves_have_their_axes_and_the_best_of_what_is_monitored(sent: Sent) -> None:
    defined = sent.config("first")["_wandb"]["m"]  # field numbers of W&B's protocol: 1 name, 2 glob, 5 axis, 7 summary (2: max)
    axis = {entry.get("1") or entry["2"]: defined[entry["5"] - 1]["1"] for entry in defined if "5" in entry}
    assert axis == {
        "train/*": "trainer/global_step", "lr-*": "trainer/global_step", "val/*": "epoch", "val/macro_f1": "epoch",
        "annotation/*": "annotation/responses",
    }  # fmt: skip
    assert [entry["7"] for entry in defined if entry.get("1") == "val/macro_f1"] == [[2]]
    assert sent.server.summaries[sent.runs["first"]]["val/macro_f1"] == 0.75  # the best epoch, not the last
    rows = sent.server.history[sent.runs["first"]]
    assert {"train/loss", "lr-AdamW", "train/grad_norm", "annotation/usd"} <= sent.columns("first")
    [spent] = [row for row in rows if "annotation/usd" in row]
    assert spent["annotation/responses"] == 2 and "trainer/global_step" not in spent
    assert "annotation/usd" not in sent.columns("second")  # which reused the annotations


def test_panels_are_native_and_without_texts(sent: Sent) -> None:
    panels = {
        f"test/{name}" for name in ("predictions", "confusion_table", "precision_recall_table", "per_class", "reliability_bins")
    }
    assert panels <= sent.columns("first")
    assert {"test/per_class_f1_table", "test/reliability_table"} <= sent.columns("first")
    assert {"val/per_label", "val/per_label_f1_table", "test/per_label", "test/per_label_f1_table"} <= sent.columns("first")
    [table] = [raw for name, raw in sent.server.files.items() if f"{sent.runs['first']}/media/table/test/predictions" in name]
    assert json.loads(table)["columns"] == ["id", "label", "predicted", "p_x", "p_y"]


def test_the_study_has_a_run_with_its_report(sent: Sent) -> None:
    assert sent.server.runs[sent.runs["moon report"]]["jobType"] == "report"
    assert {"report/table", "report/page", "figures/comparison"} <= sent.columns("moon report")
    assert b"<h1>moon</h1>" in [raw for name, raw in sent.server.files.items() if name.endswith(".html")]
    assert sent.config("moon report")["jobs"] == ["first", "scored", "second"]


def test_a_resumed_job_names_its_predecessor_and_its_curves_go_on(sent: Sent) -> None:
    fields = sent.server.runs[sent.runs["second"]]
    assert "failed: the disk is full" in sent.config("second")["findistill"]["resumed_from"]
    assert "failed: the disk is full" in fields["notes"] and "resumed" in fields["tags"]
    rows = sent.server.history[sent.runs["second"]]
    assert [row["val/macro_f1"] for row in rows if "val/macro_f1" in row] == [0.75, 0.75, 0.5]  # the failed attempt's first
    assert sent.config("first")["findistill"]["resumed_from"] is None


def test_nothing_secret_and_nothing_of_the_machine_is_sent(sent: Sent) -> None:
    program = str(Path(sys.executable).with_name("wandb"))  # which `wandb sync` says itself
    everything = sent.everything.replace(program.encode(), b"")
    assert len(everything) > 20_000
    for private in (TEXT, KEY, 'weights.bin":{"digest', str(Path.cwd())):
        assert private.encode() not in everything, private
    for fields in sent.server.runs.values():
        assert not fields.get("host") and not fields.get("repo")
    names = {name.rpartition("/")[2] for name in sent.server.files}
    assert not names & {"wandb-metadata.json", "requirements.txt", "diff.patch", "output.log", "conda-environment.yaml"}
    assert f'"username":"{getpass.getuser()}"'.encode() not in everything


@pytest.mark.parametrize(
    ("settings", "uploaded"),
    [
        (("logger.wandb.artifacts=none",), set()),
        (("logger.wandb.artifacts=files",), {"model/weights.bin"}),
        (
            ("logger.wandb.artifacts=files", "logger.wandb.texts=true"),
            {"model/weights.bin", "predictions.parquet", "annotations.parquet", "summary.json", "texts.parquet", "card.json"},
        ),
    ],
    ids=["none", "files", "files with texts"],
)
def test_what_is_uploaded_is_the_users_choice(settings: tuple[str, ...], uploaded: set[str], tmp_path: Path) -> None:
    config = composed("logger=wandb", "logger.wandb.mode=offline", "study=moon", f"runs_dir={tmp_path}", *settings)
    run(config, Small(config), "first")
    with serving() as server:
        sync(tmp_path / "moon", server)
    ours = {name for name, entry in server.artifacts.items() if entry["metadata"]}
    assert bool(ours) == bool(uploaded)
    assert {name.partition("/")[2] for name in server.files if name.partition("/")[0] in ours} == uploaded
    assert (TEXT.encode() in b"".join(server.files.values())) == ("logger.wandb.texts=true" in settings)


def test_a_page_with_texts_stays_here_unless_texts_may_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from findistill.core import wandb_report

    sent: list[set[str]] = []
    monkeypatch.setattr(wandb_report, "_content", lambda folder, *, with_page: sent.append({str(with_page)}) or {})
    for number, texts in enumerate(["false", "true"]):
        study = tmp_path / f"runs{number}" / "moon"
        study.mkdir(parents=True)
        config = composed("logger=wandb", "logger.wandb.mode=offline", "study=moon", f"logger.wandb.texts={texts}")
        plain = {**config, "report": {"texts": True}, "runs_dir": str(study.parent)}
        report(type(config)(plain, flags={"struct": False}), study)
    assert sent == [{"False"}, {"True"}]


def test_settings_of_the_client_are_checked_by_their_names() -> None:
    validate(composed("logger=wandb", "+logger.wandb.settings.x_disable_stats=true"))
    with pytest.raises(UserError) as error:
        validate(composed("logger=wandb", "+logger.wandb.settings.x_disable_stat=true"))
    assert "logger.wandb.settings.x_disable_stat: wandb.Settings has no such field (did you mean x_disable_stats?)" in str(
        error.value
    )


@pytest.mark.parametrize("place", ["a study", "many's"])
def test_the_line_names_what_is_not_sent(place: str, tmp_path: Path) -> None:
    study = tmp_path / place
    for number in range(2):
        (study / f"job{number}" / "wandb" / "offline-run-1").mkdir(parents=True)
        (study / f"job{number}" / "wandb" / "offline-run-1" / "run.wandb").touch()
    (study / "latest-student").symlink_to("job1")
    command = shlex.split(str(sync_line(study)).partition(": ")[2])
    assert command == ["wandb", "sync", f"{study}/job0/wandb", f"{study}/job1/wandb"]
    (study / "job0" / "wandb" / "offline-run-1" / "run.wandb.synced").touch()
    assert shlex.split(str(sync_line(study)).partition(": ")[2]) == ["wandb", "sync", f"{study}/job1/wandb"]
    assert sync_line(study / "job0") is None
    for number in range(2, 7):
        shutil.copytree(study / "job1", study / f"job{number}")
    result = subprocess.run(
        f"printf '%s\\n' {str(sync_line(study)).partition('wandb sync ')[2]}", shell=True, capture_output=True, text=True
    )
    assert f"{study}/job5/wandb" in result.stdout.splitlines()
    write_json(study / "job0" / "status.json", {"wandb": {"complete": False}})
    assert (
        str(sync_line(study / "job0")).partition(": ")[2]
        == f"wandb sync --include-online {shlex.quote(str(study / 'job0' / 'wandb'))}"
    )

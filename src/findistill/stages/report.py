"""`stage=report`: a study's tables, figures and page, with the baselines beside the trained models.

Reads the done jobs of `runs/<study>/`, makes what baselines are missing (artifacts, like everything that is shared), and
leaves `table.csv`, `table.md`, `report.html` and `figures/` in the study's folder.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from findistill.errors import UserError
from findistill.runs import job as jobs
from findistill.runs.files import read_json, write_json
from findistill.runs.store import Store, digest
from findistill.settings.compose import plain
from findistill.settings.rules import tunes
from findistill.settings.schema import Config, Report, TeacherDistill
from findistill.stages import annotate, fewshot, inputs, tuning
from findistill.stages.scoring import forced_choice, prediction_frame
from findistill.stages.training import weights_hash

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from findistill.analysis.methods import Run
    from findistill.data.labels import LabelSet

    Predicted = tuple[np.ndarray, Sequence[str | None], dict[str, Any]]  # probabilities, labels, further columns
    Tests = Mapping[str, tuple[pd.DataFrame, LabelSet]]

log = logging.getLogger(__name__)

# What decides a baseline: jobs that agree in these share theirs.
SHARED = ("data", "llm", "prompt", "shots", "annotate")
NEIGHBOURS = 8  # that vote where the prompts show no demonstrations
LEARNERS = ("teacher", "qlora")  # learn from human labels


def make(runs_dir: Path, study: str, settings: Report) -> None:
    """Write the report of a study from whatever is done.

    Raises:
        UserError: there is no such study, or nothing in it is done.
    """
    from findistill.analysis.report import build_report
    from findistill.analysis.shots_study import on_common_rows

    folder = runs_dir / study
    if not folder.is_dir():
        known = ", ".join(sorted(path.parent.name for path in runs_dir.glob("*/study.json"))) or "none yet"
        raise UserError(f"study={study}: {folder} does not exist; studies in {runs_dir}: {known}")
    runs, failed = collect(folder)
    if not runs:
        raise UserError(
            f"study={study}: no job in {folder} is done and scored, so there is nothing to report.\n"
            "Annotations are scored where the data has gold labels."
        )
    published = settings.published or next((run.config["report"]["published"] for run in runs if "report" in run.config), None)
    store = Store(runs_dir / ".artifacts")
    annotations = None
    for config in list(settings_of_baselines(runs)):
        with jobs.aside(config, store) as job:
            found, voted = baselines(job, list(settings.baselines))
        there = {run.folder for run in runs}  # annotators with other demonstrations share the majority class
        runs += [run for run in found if run.folder not in there]
        annotations = voted if annotations is None else annotations
    if "teacher" in settings.baselines:
        runs += teachers(runs, store)
    runs = on_common_rows(runs)
    commands = folder / "commands.txt"
    files = build_report(
        study, runs, failed, folder, published=published, resamples=settings.resamples, annotations=annotations,
        command=commands.read_text(encoding="utf-8").strip() if commands.exists() else None,
    )  # fmt: skip
    log.info("\n%s", files.table_md.read_text(encoding="utf-8"))
    log.info("table: %s\nreport: %s\nfigures: %s", files.table_csv, files.html, folder / "figures")


def collect(folder: Path) -> "tuple[list[Run], list[dict[str, Any]]]":
    """The scored jobs of a study, annotators behind trained models, and the jobs that did not end well."""
    import pandas as pd

    from findistill.analysis.methods import Run

    runs: list[Run] = []
    failed = []
    for path in sorted(folder.glob("*/status.json")):
        state = jobs.status(path.parent)
        if state.get("state") != "done":
            failed.append({"job": path.parent.name, "error": state.get("error") or f"still {state.get('state', 'starting')}"})
        elif (predictions := path.with_name("predictions.parquet")).exists():
            config = plain(OmegaConf.load(path.with_name("config.yaml")))
            metrics = read_json(path.with_name("metrics.json"))
            if taught := teacher_of(config, path.parent):
                state = {**state, "teacher": taught}
            name = method_name(config, metrics)
            kind, seed, settings = identity(config)
            if kind == "fewshot" and any((run.method, run.seed, run.config) == (name, seed, settings) for run in runs):
                continue  # nothing is drawn for these settings: the jobs of all seeds are one
            runs.append(Run(name, kind, seed, settings, metrics, pd.read_parquet(predictions), path.parent, state))
    return sorted(runs, key=lambda run: run.kind == "annotator"), failed


def teacher_of(config: Mapping[str, Any], folder: Path) -> str | None:
    """The model that a job's student learnt from: an artifact's name, or what `distill.teacher` names."""
    if config["stage"]["name"] != "student" or config["distill"]["votes"] != "teacher":
        return None
    return read_json(folder / "artifacts.json").get("teacher") or config["distill"]["teacher"] or None


def teachers(runs: "list[Run]", store: Store) -> "list[Run]":
    """The teacher models of the students, on the students' test rows. One that is gone is left out."""
    students: dict[str, Run] = {}  # one of each teacher
    for run in runs:
        if name := run.status.get("teacher"):
            students.setdefault(name, run)
    found = []
    for name, student in students.items():
        try:
            found.append(_teacher(name, student, store))
        except UserError as error:
            log.info("the students' teacher is not in the report: %s", str(error).splitlines()[0])
    return found


def _teacher(name: str, student: "Run", store: Store) -> "Run":
    """The model `name` that `student` learnt from, as an artifact."""
    import pandas as pd

    from findistill.analysis.methods import Run
    from findistill.learning.encoders import open_trained
    from findistill.learning.fit import predict
    from findistill.stages.scoring import matched

    assert student.folder is not None
    config = cast(Config, OmegaConf.load(student.folder / "config.yaml"))
    named = cast(TeacherDistill, config.distill).teacher
    model = named or str(store.root / name)

    def predicted(rows: "pd.DataFrame", labels: tuple[str, ...]) -> "Predicted":
        found = predict(model, rows["text"].tolist(), config.trainer, tokens_cache=store.root / "tokens")
        return *matched(found, labels, model), {}

    def write(folder: Path) -> None:
        size = sum(weight.numel() for weight in open_trained(model)[0].parameters())
        write_baseline(folder, tests, predicted, {"model/parameters": size})

    with jobs.aside(config, store) as job:
        tests = inputs.test_sets(job, inputs.dataset(job))
        key = {
            "baseline": "teacher",
            "model": [name, weights_hash(model)],
            "tests": {prefix: inputs.texts_hash(rows) for prefix, (rows, _) in tests.items()},
        }
        folder = job.artifact("baseline", key, write)
    settings = {part: student.config[part] for part in ("data", "teacher", "trainer")}
    settings |= {"distill": {"teacher": named}, "augment": {"use": student.config["augment"]["use"]}}
    title = "the students' teacher" + ("" if named else f", {config.teacher.name}")
    predictions = pd.read_parquet(folder / "predictions_test.parquet")
    return Run(title, "teacher", None, settings, read_json(folder / "metrics.json"), predictions, folder, {"teacher": name})


def identity(config: dict[str, Any]) -> tuple[str, int | str, dict[str, Any]]:
    """The kind of a job's method, what tells the job from its repeats, and the settings that make the method."""
    from findistill.analysis.methods import REPEATS

    kind = config["stage"]["name"]
    if kind == "fewshot":
        settings = jobs.sections(fewshot.alike(cast(Config, OmegaConf.create(config))), fewshot.reads(cast(Config, config)))
        seed, order = settings["shots"].pop("seed"), settings["shots"].pop("order")
        return kind, seed if order is None else f"{seed}/{order}", settings
    if kind != "annotate":
        return kind, config["seed"], config
    settings = jobs.sections(cast(Config, OmegaConf.create(config)), annotate.reads(cast(Config, config)))
    repeat = []
    for section, name in (key.split(".") for key in REPEATS):
        value = settings[section].pop(name)
        repeat.append("-" if value is None else str(value))
    return "annotator", "/".join(repeat), settings


def method_name(config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """How tables call the method of a job; seeds share it."""
    from findistill.analysis.methods import taught_by

    stage = config["stage"]["name"]
    if stage == "annotate":
        if members := config["annotate"]["members"]:
            return f"{config['annotate']['combine']} of {len(members)} annotators"
        return f"{config['llm']['name']} {config['prompt']['name']} k={config['shots']['k']}"
    if stage == "fewshot":
        llm, prompt, shots = config["llm"]["name"], config["prompt"]["name"], config["shots"]
        return f"{llm} {prompt} k={shots['k']}" + (f" {shots['selection']}" if shots["k"] else "")
    if stage == "student":
        distill = config["distill"]
        if distill["votes"] == "teacher":
            faulty = "" if distill["recipe"] == "fixed" else f" ({distill['recipe']})"
            return f"{config['student']['name']}: {taught_by(distill['terms'])}{faulty}"
        scalar = " scalar" if distill["target"] == "scalar" else ""
        return f"{distill['objective'].upper()}{scalar} ≥{distill['min_agreement']}"
    if stage == "qlora":
        return f"{tuning.method(config['qlora']['quantization'])} {config['llm']['name']}"
    if stage == "teacher":
        new = metrics.get("data/augmented", 0)
        more = f" + {new:,.0f} new texts" if new else ""
        source = config["teacher"]["pretrain"]["source"]
        pretrained = f", pretrained on {source}" if source else ""
        freed = ", gradual unfreezing" if config["trainer"]["unfreeze"] == "gradual" else ""
        return f"{config['teacher']['name']} on {metrics['data/kept'] - new:,.0f} human labels{more}{pretrained}{freed}"
    return str(config["evaluate"]["model"])


def settings_of_baselines(runs: "list[Run]") -> Iterator[Config]:
    """One configuration for each setting of a student's data and annotator, of an annotator's texts and pool, and so on.

    Models that learnt from human labels have baselines of their own where no other job brings them.
    """
    seen = set()
    brought = any(run.kind in ("student", "fewshot", "annotator") for run in runs)
    shown = any(run.kind == "fewshot" and run.config["shots"]["k"] for run in runs)
    for run in runs:
        if run.kind == "student":
            key = digest([_shared(run.config), run.config["evaluate"]["also"]])
        elif run.kind == "fewshot":
            if shown and not run.config["shots"]["k"]:  # as many neighbours vote as prompts show demonstrations
                continue
            key = digest([_of_tests(run.config), run.config["shots"]["k"] or NEIGHBOURS])
        elif run.kind == "annotator":
            key = digest([_of_texts(run.config), run.config["shots"]["k"] or NEIGHBOURS])
        elif run.kind in LEARNERS and not brought:
            key = digest(_of_learners(run.config))
        else:
            continue
        if key not in seen:
            seen.add(key)
            assert run.folder is not None
            yield cast(Config, OmegaConf.load(run.folder / "config.yaml"))


def _shared(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the baselines beside a student."""
    return {name: config[name] for name in ((*SHARED, "qlora") if tunes(config) else SHARED)}


def _of_texts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an annotator that decide which texts it labels and which labelled ones it may know."""
    return {
        "data": config["data"],
        "shots": {"source": config["shots"]["source"]},
        "annotate": {"limit": config["annotate"]["limit"]},
    }


def _of_tests(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a few-shot job that decide on which rows it is tested and which labelled ones it may know."""
    return {
        "data": config["data"],
        "shots": {"source": config["shots"]["source"]},
        "fewshot": {"limit": config["fewshot"]["limit"]},
        "evaluate": {"also": config["evaluate"]["also"]},
    }


def _of_learners(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that learns from human labels that decide which rows it knows and on which it is tested."""
    return {"data": config["data"], "evaluate": {"also": config["evaluate"]["also"]}}


def baselines(job: "jobs.Job", names: list[str]) -> "tuple[list[Run], pd.DataFrame | None]":
    """The named baselines on the same rows as the jobs of `job.config`, and a student's annotator's votes on the pool.

    `majority`: the most frequent label of the labelled pool; `neighbours`: the vote of the nearest labelled texts, no
    LLM; `annotator`: the LLM itself on the test rows, where the jobs are students. Each is an artifact.
    """
    import pandas as pd

    from findistill.analysis.methods import Run

    config = job.config
    whole = plain(config)
    data = inputs.dataset(job)
    pool = inputs.labelled_pool(job, data)
    k = config.shots.k or NEIGHBOURS
    if config.stage.name == "annotate":
        rows = inputs.unlabelled(job, data)
        tests = {"test": (rows[rows["label"].notna()], data.labels)}
        pool = inputs.drop_tested(pool, tests)
        settings = _of_texts(whole)
    elif config.stage.name == "fewshot":
        tests = fewshot.test_sets(job, data)
        pool = inputs.drop_tested(pool, inputs.test_sets(job, data))
        settings = _of_tests(whole)
    elif config.stage.name in LEARNERS:
        tests = inputs.test_sets(job, data)
        pool, k = inputs.drop_tested(inputs.supervised(data), tests), NEIGHBOURS
        settings = _of_learners(whole)
    else:
        tests = inputs.test_sets(job, data)
        settings = _shared(whole)
    students = config.stage.name == "student"
    asked_llm = students and config.distill.votes == "annotator"
    of_neighbours = settings if students else {**settings, "k": k}  # a student's `shots` say it
    if not students and len(pool) < k:
        log.info("no baselines of %s: it has no %d labelled texts apart from those to predict", config.data.name, k)
        names = []
    made = {
        "majority": ("majority class", settings, lambda rows: _majority(data, pool, rows)),
        "neighbours": (f"nearest-neighbour vote (k={k})", of_neighbours, lambda rows: _neighbours(data, pool, rows, k)),
        "annotator": (
            f"annotator ({config.llm.name}, {config.annotate.samples} samples)",
            settings,
            lambda rows: _annotator(job, data, rows),
        ),
    }
    if unknown := set(names) - {*made, "teacher"}:
        raise UserError(f"report.baselines: {', '.join(sorted(unknown))} unknown; there are {', '.join(made)}, teacher")
    runs = []
    for name in names:
        if name == "teacher" or (name == "annotator" and not asked_llm):
            continue
        method, settings, predict = made[name]
        key = {
            "baseline": name,
            "settings": settings,
            "tests": {prefix: inputs.texts_hash(rows) for prefix, (rows, _) in tests.items()},
        }

        def predicted(rows: "pd.DataFrame", labels: tuple[str, ...], predict: Any = predict) -> "Predicted":
            probabilities, named, extra = predict(rows)
            if set(labels) == set(data.labels.names):
                return probabilities, named, extra
            probabilities = forced_choice(probabilities, data.labels.names, labels)
            return probabilities, [labels[column] for column in probabilities.argmax(axis=1)], extra

        folder = job.artifact("baseline", key, lambda folder, how=predicted: write_baseline(folder, tests, how, {}))
        predictions = pd.read_parquet(folder / "predictions_test.parquet")
        runs.append(Run(method, "baseline", None, settings, read_json(folder / "metrics.json"), predictions, folder))
    voted = inputs.annotations(job, data, inputs.unlabelled(job, data)) if asked_llm else None
    return runs, voted


def write_baseline(folder: Path, tests: "Tests", predicted: "Callable[..., Predicted]", metrics: dict[str, float]) -> None:
    """Leave what `predicted(rows, labels)` says of every test set, and its metrics beside the given ones, in `folder`."""
    from findistill.analysis.metrics import evaluate

    for prefix, (rows, label_set) in tests.items():
        probabilities, named, extra = predicted(rows, label_set.names)
        frame = prediction_frame(rows, probabilities, named, label_set.names).assign(**extra)
        frame.to_parquet(folder / f"predictions_{prefix}.parquet", index=False)
        metrics = metrics | evaluate(frame["label"].tolist(), probabilities, named, label_set.names, prefix=prefix)
    write_json(folder / "metrics.json", metrics)


def _majority(data: Any, pool: "pd.DataFrame", rows: "pd.DataFrame") -> "tuple[np.ndarray, list[str | None], dict[str, Any]]":
    import numpy as np

    shares = pool["label"].value_counts(normalize=True)
    prior = np.array([shares.get(label, 0.0) for label in data.labels.names])
    return np.tile(prior, (len(rows), 1)), [str(shares.idxmax())] * len(rows), {}


def _neighbours(
    data: Any, pool: "pd.DataFrame", rows: "pd.DataFrame", k: int
) -> "tuple[np.ndarray, list[str | None], dict[str, Any]]":
    from findistill.data.embeddings import embed_once
    from findistill.data.neighbours import nearest, neighbour_vote

    indexes, similarities = nearest(embed_once(rows["text"].tolist()), embed_once(pool["text"].tolist()), k)
    shares = neighbour_vote(similarities, indexes, pool["label"].tolist(), data.labels)
    return shares, [data.labels.names[column] for column in shares.argmax(axis=1)], {}


def _annotator(job: "jobs.Job", data: Any, rows: "pd.DataFrame") -> "tuple[np.ndarray, list[str | None], dict[str, Any]]":
    voted = inputs.annotations(job, data, rows)
    names = data.labels.names
    # The vote shares are what the method says; exact probabilities, where the engine reads them, only break their ties.
    shares = voted[[f"soft_{label}" for label in names]].to_numpy()
    if f"p_{names[0]}" in voted:
        shares = (shares + 1e-3 * voted[[f"p_{label}" for label in names]].to_numpy()) / 1.001
    predicted = [label if isinstance(label, str) else None for label in voted["label"]]
    return shares, predicted, {"agreement": voted["agreement"].to_numpy(), "n_samples": voted["n_samples"].to_numpy()}

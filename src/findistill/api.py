"""The public Python API: data sets, votes, and three classes that run the pipeline's steps from a notebook.

Settings are those of the command line, as keywords (`llm="smollm2"`) or overrides (`"annotate.samples=4"`). Results are cached
in the same store below `runs_dir`, and reused for the same settings. Mistakes raise `UserError`, with the same messages.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import pandas as pd
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from findistill.config.compose import composed
from findistill.config.expand import expand
from findistill.config.groups import config_dir, group_options
from findistill.config.messages import message
from findistill.config.overrides import as_overrides, quoted, words_of
from findistill.config.targets import check_names
from findistill.config.validate import validate
from findistill.core import job as jobs
from findistill.core import run_folder, study
from findistill.core.files import read_json
from findistill.core.store import Store
from findistill.data.dataset import Dataset
from findistill.data.serialization import read_folder, store_frame
from findistill.data.texts import DataCard, is_labelled
from findistill.errors import UserError
from findistill.hydra_ext.argv import with_model_folders
from findistill.inference import onnx_model, predict
from findistill.methods.annotate.steps import annotations
from findistill.methods.stage import stage_of
from findistill.models.label_names import unnamed
from findistill.schema import Config
from findistill.training.config import Trainer

READERS = {".csv": "csv", ".tsv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".parquet": "parquet", ".xlsx": "excel"}

# A loaded data set, the name of one with settings (`demo rows=900`), a file, texts in memory, or a frame with the column
# `text` and, for human labels, `label`.
Texts: TypeAlias = "TextSet | str | Path | Sequence[str] | pd.DataFrame"


@dataclass(frozen=True)
class TextSet:
    """A data set, cleaned and split. No text is in two splits. Each frame has the columns `id`, `text`, `label`, `split`,
    `date`, `source` and any others of the source; a data set of entities has `spans` instead of `label`.

    Attributes:
        labels: the label names, in the order of the columns `p_<label>` and `soft_<label>`.
        card: licence, citation, origin, counts; `card.text()` formats it for printing.
        frame: all rows, one per text.
        overrides: the settings that select it, as on the command line.
    """

    labels: tuple[str, ...]
    card: DataCard
    frame: pd.DataFrame
    overrides: tuple[str, ...]

    def _split(self, name: str) -> pd.DataFrame:
        return self.frame[self.frame["split"] == name].reset_index(drop=True)

    @property
    def train(self) -> pd.DataFrame:
        """Training rows whose human labels may be used: those of `data.labelled`, if it is set."""
        pool = self._split("pool")
        rows = pool if len(pool) else self._split("train")
        return rows[is_labelled(rows)].reset_index(drop=True)

    @property
    def unlabelled(self) -> pd.DataFrame:
        """Training rows without a label, or, with `data.labelled`, whose label is hidden; `label` or `spans` is None."""
        rows = self._split("train")
        hidden = rows if len(self._split("pool")) else rows[~is_labelled(rows)]
        return hidden.assign(**{"spans" if "spans" in rows else "label": None}).reset_index(drop=True)

    @property
    def validation(self) -> pd.DataFrame:
        """Rows for choosing epochs, thresholds and calibration; no results are measured on them."""
        return self._split("validation")

    @property
    def test(self) -> pd.DataFrame:
        """Rows on which results are measured, once; nothing is trained or chosen on them."""
        return self._split("test")


@dataclass(frozen=True)
class AnnotationSet:
    """The output of an annotator.

    Attributes:
        votes: a row per text: `id, text, label` (the majority; None without a valid answer), `gold` (the source's own label,
            which the annotator never saw), `agreement, n_valid, n_samples, soft_<label>..., rationale, confidence`.
        responses: a row per response: `id, sample, label, raw, ...`; empty for edited votes.
        summary: totals: texts, samples, valid, requests, tokens_in, tokens_out, seconds (wall time), cost_usd (US dollars).
    """

    votes: pd.DataFrame
    responses: pd.DataFrame
    summary: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished job.

    Attributes:
        folder: `runs/<study>/<job>/`, the same as from the command line.
    """

    folder: Path

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face folder."""
        return self.folder / "model"

    @cached_property
    def metrics(self) -> dict[str, float]:
        """`metrics.json`: fractions (`test/accuracy`, 95% bounds `_lo`, `_hi`), counts, seconds (`_s`), megabytes (`_mb`)."""
        return cast(dict[str, float], read_json(self.folder / "metrics.json"))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row per test text: `id, text, label, predicted, p_<label>...`; the probabilities of a row sum to 1."""
        return pd.read_parquet(self.folder / "predictions.parquet")


@contextmanager
def _hydra() -> Iterator[None]:
    """Initialise Hydra as the command line does, even within another Hydra application; its errors become `UserError`."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(message(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer


@_hydra()
def load_dataset(data: "Texts" = "demo", *, runs_dir: str | Path = "runs", **settings: Any) -> TextSet:
    """Read, clean and split a data set.

    Args:
        data: the name of a data set (`demo`, `phrasebank`, ...), a file (CSV, JSON, Parquet, Excel), texts or a frame.
        runs_dir: where the result is cached.
        settings: settings of the section `data`: `label_column="label"`, `labels=["up", "down"]`, `limit=500`.

    Returns:
        the rows by split, the label names, and a card with licence and counts.

    Raises:
        UserError: no such data set, file, column or setting; an invalid value, with file, row and column.
    """
    overrides = [*_data_words(data, runs_dir), *as_overrides(settings, "data.")]
    read = read_folder(_store(runs_dir).build(Dataset(_composed(overrides, runs_dir, rules=False).data)))
    return TextSet(read.labels.names, read.card, read.frame, tuple(overrides))


def load_annotations(folder: str | Path) -> AnnotationSet:
    """Read annotations from a folder.

    Args:
        folder: an artifact, `runs/.artifacts/annotate-KEY`, or a run (annotate or student) that used one.

    Returns:
        the votes, the responses they were counted from, and totals.

    Raises:
        UserError: the folder has no annotations, and is not a run that used any.
    """
    path = Path(folder)
    if not (path / "annotations.parquet").is_file():
        path = run_folder.artifact_of(path, "annotate") or path
    if not (path / "annotations.parquet").is_file():
        remedy = "give runs/.artifacts/annotate-KEY or the folder of a run that used it"
        raise UserError(f"{folder}: no annotations.parquet; {remedy}")
    samples, summary = path / "samples.jsonl", path / "summary.json"
    return AnnotationSet(
        pd.read_parquet(path / "annotations.parquet"),
        pd.read_json(samples, lines=True, dtype=False) if samples.is_file() else pd.DataFrame(),
        read_json(summary) if summary.is_file() else {},
    )


class _Configured:
    """Overrides and keywords. Names and values are checked on creation, rules between settings when it runs."""

    stage: str

    @_hydra()
    def __init__(self, *overrides: str, runs_dir: str | Path = "runs", **settings: Any) -> None:
        self.runs_dir = runs_dir
        self.overrides = [*as_overrides(settings), *overrides]
        _composed([f"stage={self.stage}", *self.overrides], runs_dir, rules=False)

    def _with(self, data: "Texts | None", *words: str) -> list[str]:
        """All overrides, each key once: the object's own take precedence over those of the call."""
        chosen = [] if data is None else _data_words(data, self.runs_dir)
        words = (f"stage={self.stage}", *words, *chosen, *self.overrides)
        return list({word.partition("=")[0]: word for word in words}.values())


class Annotator(_Configured):
    """An LLM with a prompt and demonstrations, which votes on texts.

    Args:
        overrides: settings as on the command line, `"annotate.samples=4"`.
        runs_dir: where votes and responses are cached; every response is paid for once.
        settings: `llm`, `prompt`, `shots`, `annotate`, ...: an option (`llm="smollm2"`) or a mapping (`shots={"k": 4}`).

    Raises:
        UserError: no such option or setting, or an invalid value.
    """

    stage = "annotate"

    @_hydra()
    def annotate(self, data: "Texts | None" = None) -> pd.DataFrame:
        """Annotate the training and validation rows of a data set, or all texts of a list, each distinct one once.

        Args:
            data: what to annotate, `Texts`; by default the `data` of the settings.

        Returns:
            a row per text, see `AnnotationSet.votes`.

        Raises:
            UserError: incompatible settings, a model that cannot be reached or loaded, too many failed requests.
        """
        config = _composed(self._with(data), self.runs_dir)
        return load_annotations(_store(self.runs_dir).build(annotations(config))).votes


class Distiller(_Configured):
    """A student model that learns from votes, or from a teacher model.

    Args:
        overrides: settings as on the command line, `"distill.min_agreement=6"`.
        runs_dir: where runs and artifacts are stored.
        settings: `student`, `distill`, `trainer`, `seed`, `study`, ...: an option, a value, or a mapping.

    Raises:
        UserError: no such option or setting, or an invalid value.
    """

    stage = "student"

    @_hydra()
    def fit(
        self,
        data: "Texts | None" = None,
        votes: "Annotator | pd.DataFrame | str | Path | None" = None,
        teacher: "Run | str | Path | None" = None,
    ) -> Run:
        """Train a student and score it on the human-labelled test rows; the same call again returns the finished run.

        Args:
            data: what to learn from; by default the settings' `data`. Texts without labels need `evaluate={"also": ["tfns"]}`.
            votes: an annotator, a frame that one returned (edited or not), or a folder with `annotations.parquet`; by default
                the votes of the configured `llm`.
            teacher: a run, model folder or hub id to learn from instead; `distill` then defaults to `logit`.

        Returns:
            the run, with its model, metrics and test predictions.

        Raises:
            UserError: incompatible settings, no test rows, too few texts with enough agreement.
        """
        words: list[str] = []
        if isinstance(votes, Annotator):
            words += votes.overrides
        elif votes is not None:
            folder = (
                store_frame(_store(self.runs_dir), "votes", "annotations", votes)
                if isinstance(votes, pd.DataFrame)
                else Path(votes)
            )
            words += ["distill.source=folder", f"distill.annotations={quoted(str(folder))}"]
        if teacher is not None:
            reference = teacher.folder if isinstance(teacher, Run) else teacher
            chosen = any(word.startswith("distill=") for word in self.overrides)
            words += [*([] if chosen else ["distill=logit"]), f"distill.teacher={quoted(str(reference))}"]
        overrides = self._with(data, *words)
        config = _composed(overrides, self.runs_dir)
        stage = stage_of(config)
        folder = run_folder.folder_of(config, stage, overrides)
        if not run_folder.is_done(folder):
            study.admit(run_folder.study_folder(config), config.study, [run_folder.sections(config, stage)], config.sweep.vary)
            jobs.run(config, stage, folder, [*overrides, f"runs_dir={quoted(str(self.runs_dir))}"])
        return Run(folder)


class Classifier:
    """A trained classifier: `Classifier.from_pretrained(folder).predict(texts)`.

    Attributes:
        labels: the label names, in the order of the columns `p_<label>`.
    """

    def __init__(self, classify: Any, labels: Sequence[str], trainer: Trainer) -> None:
        self._classify, self.labels, self._trainer = classify, tuple(labels), trainer

    @classmethod
    def from_pretrained(
        cls, model: "Run | str | Path", *, accelerator: str = "auto", max_length: int | None = None
    ) -> "Classifier":
        """Load a trained model.

        Args:
            model: a run, a run or model folder, a hub id, or an ONNX file or folder.
            accelerator: `auto`, `cpu` or `gpu`.
            max_length: where texts are truncated, in tokens; by default as in training.

        Returns:
            the classifier, with its weights in memory.

        Raises:
            UserError: it cannot be loaded, or does not name its labels.
        """
        reference = str(model.folder if isinstance(model, Run) else model)
        trainer = Trainer(accelerator=accelerator, max_length=max_length)
        if file := onnx_model.find(reference):
            opened = onnx_model.open_onnx(file)
            return cls(partial(onnx_model.classify, opened), opened.labels, trainer)
        classifier = predict.open_classifier(reference)
        if unnamed(classifier.labels):
            raise UserError(f"the model {reference} does not name its labels: write them into id2label of its config.json")
        return cls(classifier, classifier.labels, trainer)

    def predict(self, texts: Iterable[str], *, batch_size: int = 128) -> pd.DataFrame:
        """Classify texts, in batches of similar length, float32.

        Args:
            texts: any number of them.
            batch_size: texts per batch.

        Returns:
            a row per text, in the same order: `text`, `label` (the most probable one), `p_<label>` (n_labels probabilities).

        Raises:
            UserError: `texts` is one string, or contains anything but strings.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        wrong = next((place for place, text in enumerate(rows) if not isinstance(text, str)), None)
        if isinstance(texts, str) or wrong is not None:
            where = "one string" if wrong is None else f"{rows[wrong]!r} at position {wrong}"
            raise UserError(f"predict takes a list of texts, not {where}: predict([text])")
        prediction = self._classify(rows, self._trainer, batch_size=batch_size)
        frame = pd.DataFrame({"text": rows, "label": prediction.predicted}, dtype=object)
        return frame.assign(**{f"p_{name}": prediction.probabilities[:, i] for i, name in enumerate(self.labels)})


def _composed(words: Sequence[str], runs_dir: str | Path, *, rules: bool = True) -> Config:
    """The configuration that the command line would compose from these overrides, with the same checks."""
    overrides = with_model_folders([*words, f"runs_dir={quoted(str(runs_dir))}"])
    as_composed = composed("config", overrides)
    check_names(as_composed)
    config = expand(cast(Config, as_composed))
    validate(config, rules=rules)
    return config


def _store(runs_dir: str | Path) -> Store:
    return Store(Path(runs_dir) / ".artifacts")


def _data_words(data: "Texts", runs_dir: str | Path) -> list[str]:
    """Overrides that select a data set; texts in memory are written to the store as a file."""
    if isinstance(data, TextSet):
        return list(data.overrides)
    if isinstance(data, str | Path):
        name, *settings = words_of(str(data)) or [""]
        if name in group_options("data"):
            return [f"data={name}", *(f"data.{setting}" for setting in settings)]
        if (reader := READERS.get(Path(data).suffix)) is None:
            files, names = ", ".join(READERS), ", ".join(group_options("data"))
            raise UserError(f"data={data}: no such data set and not a {files} file; available: {names}")
        path = Path(data).resolve()
        if not path.is_file():
            raise UserError(f"data={data}: no such file")
    else:
        frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame({"text": list(data)}, dtype=object)
        reader, path = "parquet", (store_frame(_store(runs_dir), "texts", "texts", frame) / "texts.parquet").resolve()
        if "label" in frame:
            return [f"data={reader}", f"data.path={quoted(str(path))}", "data.label_column=label"]
    return [f"data={reader}", f"data.path={quoted(str(path))}"]

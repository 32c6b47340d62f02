"""Creating new texts: written by an LLM or by replacing words, then screened and relabelled."""

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from findistill.config.compose import plain, with_overrides
from findistill.config.expand import annotators
from findistill.core.files import write_json
from findistill.core.job import Job
from findistill.core.step import Settings
from findistill.core.store import Work
from findistill.data.texts import TextData
from findistill.inference.predict import predict
from findistill.llm.aggregate import aggregate
from findistill.methods import rows as reading
from findistill.methods.annotate.annotations import annotate_with, annotator_name, cost_curve, with_adapter
from findistill.methods.annotate.steps import Annotations
from findistill.methods.augment import writing
from findistill.methods.augment.config import WRITTEN
from findistill.methods.augment.screening import Screening
from findistill.methods.augment.steps import OF_ERRORS, Augmented
from findistill.methods.augment.teacher import Teacher, source_rows, teacher_of
from findistill.methods.augment.word_swaps import WordSwaps

log = logging.getLogger(__name__)


def preview(job: Job) -> None:
    """Print a filled prompt of each kind, an estimate of requests and cost, or both, without sending anything.

    The number of texts to write depends on the teacher's errors, so the teacher is trained first, and cached.
    """
    work = job.store.at(Augmented(job.step.whole), job.folder)
    orders = _orders(work)
    if work.config.annotate.show_prompt:
        for order in orders:
            sys.stdout.write(f"{order.method}, {order.label or 'no label'}\n{writing.filled_prompt(order)}\n\n")
    if work.config.annotate.dry_run:
        sys.stdout.write(f"{work.config.llm.name}: {_estimate(work, orders)}\n")


def requests(work: Work) -> str:
    """What the step would request and cost, in one line."""
    return ", ".join(_estimate(work, _orders(work)).splitlines())


def _estimate(work: Work, orders: list[writing.Order]) -> str:
    config = work.config
    return writing.estimate(orders, config.llm, config.prompt, config.augment, cache=work.responses)


def _orders(work: Work, rows: pd.DataFrame | None = None) -> list[writing.Order]:
    """What an LLM is to write, from the source rows with the teacher's predictions (by default computed here)."""
    config = work.config
    rows = _with_predictions(work)[0] if rows is None else rows
    sources = {method: part for method, part in _sources(config, rows).items() if method in WRITTEN}
    labels = reading.dataset(work).labels
    return writing.orders(sources, rows, plain(config.augment.per_text), labels, config.prompt, config.augment)


def make(work: Work) -> None:
    """Write `augmented.parquet`, `dropped.parquet`, `prompts.json` and `summary.json`."""
    data = reading.dataset(work)
    tests = reading.test_sets(work)
    _, validation = reading.supervision(work, data, tests)
    held_out = {name: frame["text"].tolist() for name, (frame, _) in tests.items()}
    held_out = {"validation": validation["text"].tolist(), **held_out}

    rows, teacher = _with_predictions(work)
    sources = _sources(work.config, rows)
    log.info("creating new texts from %s", ", ".join(f"{len(part):,} texts by {method}" for method, part in sources.items()))
    texts, prompts, summary = _write(work, sources, rows)
    summary["augment/made"] = len(texts)
    if teacher is not None:
        wrong = int((rows["predicted"] != rows["label"]).sum())
        summary |= {"augment/errors": wrong, "augment/error_share": wrong / len(rows)}

    screening = Screening(texts)
    screening.well_formed(work.config.augment.min_words, work.config.augment.max_words)
    screening.far_from(held_out)
    training = data.split("train", "pool")["text"].tolist()
    screening.new(dict(zip(rows["id"], rows["text"], strict=True)), training, work.config.augment.similarity)
    summary |= _relabel(work, data, screening, rows, teacher)
    _save(work.folder, screening, prompts, summary)


def _with_predictions(work: Work) -> tuple[pd.DataFrame, Teacher | None]:
    """The source rows with the teacher's `fold` and `predicted` if a method or filter needs them."""
    rows = source_rows(work)
    if "teacher" not in work.parents:
        return rows, None
    teacher = teacher_of(work, rows)
    return rows.merge(teacher.predictions[["id", "fold", "predicted"]], on="id", validate="one_to_one"), teacher


def _sources(config: Settings, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The source rows of each method: the teacher's errors, or all rows."""
    settings = config.augment
    errors = rows[rows["predicted"] != rows["label"]] if "predicted" in rows else rows
    of_method = {method: errors if method in OF_ERRORS else rows for method in settings.methods}
    samples = {method: reading.draw(part, settings.limit, settings.seed) for method, part in of_method.items()}
    return {method: part.sort_index().reset_index(drop=True) for method, part in samples.items()}


def _write(
    work: Work, sources: dict[str, pd.DataFrame], rows: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, str], dict[str, Any]]:
    """All new texts with their provenance, the prompts by hash, and usage totals."""
    config, settings = work.config, work.config.augment
    orders = _orders(work, rows)
    written = writing.write(orders, config.llm, settings, config.annotate, cache=work.responses, curve=cost_curve(work))
    texts = [{**row, "model": config.llm.model} for row in written.rows]
    if "words" in sources:
        part = sources["words"]
        swaps = WordSwaps(settings.masked_lm, settings.replace, settings.candidates)
        copies = swaps.copies(list(zip(part["id"], part["text"], strict=True)), settings.per_text.words, settings.seed)
        model = settings.masked_lm or "embedded:minilm_l6 (word vectors)"
        texts += [
            {"method": "words", "source_id": source, "sample": number, "text": text, "label": label, "model": model}
            for source, label, of_source in zip(part["id"], part["label"], copies, strict=True)
            for number, text in enumerate(of_source)
        ]
    columns = ["method", "source_id", "sample", "text", "label", "writer_label", "model", "prompt", "echo"]
    frame = pd.DataFrame(texts, columns=columns).astype(object)
    frame = frame.where(frame.notna(), None).astype({"sample": int})
    parts = zip(frame["method"], frame["source_id"], frame["sample"], strict=True)
    frame.insert(0, "id", [":".join(map(str, each)) for each in parts])
    summary: dict[str, Any] = {f"augment/made_{method}": int((frame["method"] == method).sum()) for method in sources}
    if orders:
        summary |= {f"augment/{name}": value for name, value in written.totals.items()} | {"cost/usd": written.cost_usd}
    return frame, written.prompts, summary


# -- relabelling ---------------------------------------------------------------------------------------------------------


def _relabel(work: Work, data: TextData, screening: Screening, rows: pd.DataFrame, teacher: Teacher | None) -> dict[str, int]:
    """Drop rows that do not get the requested label in every round of relabelling (Thomas 2024: relabelled until stable).

    Unlabelled rows pass. Adds `relabels`, the rounds a row passed, and `agreement`, its label's mean vote share (or mean
    probability) over them. Returns the number of rows dropped in each round.
    """
    settings = work.config.augment
    rounds = 0 if settings.relabel == "none" else settings.rounds
    screening.rows = screening.rows.assign(relabels=0, agreement=0.0)
    if settings.relabel == "teacher":
        assert teacher is not None
        rounds = min(rounds, max(1, len(teacher.models) - 1))
        fold_of = dict(zip(rows["id"], rows["fold"], strict=True))
        screening.rows = screening.rows.assign(fold=screening.rows["source_id"].map(fold_of))
    counts: dict[str, int] = {}
    for number in range(rounds):
        labelled = screening.rows["label"].notna().to_numpy()
        part = screening.rows[labelled].reset_index(drop=True)
        if part.empty:
            break
        if settings.relabel == "llm":
            labels, share = _votes(work, data, part, number)
        else:
            labels, share = _predictions(work, teacher, part, number)
        wrong = np.zeros(len(labelled), bool)
        wrong[labelled] = [one != label for one, label in zip(labels, part["label"], strict=True)]
        screening.rows.loc[labelled, "agreement"] += share
        screening.rows.loc[labelled, "relabels"] = number + 1
        counts[f"augment/relabel_{number + 1}_dropped"] = int(wrong.sum())
        screening.drop(wrong, "relabelled otherwise")
    mean = screening.rows["agreement"] / screening.rows["relabels"].where(screening.rows["relabels"] > 0)
    screening.rows = screening.rows.assign(agreement=mean)
    return counts


def _votes(work: Work, data: TextData, part: pd.DataFrame, number: int) -> tuple[list[str | None], np.ndarray]:
    """The annotator's labels, and its vote share for the requested label; each round draws new samples.

    The responses are cached like all others; the votes are temporary.
    """
    folder, members = work.folder / f"votes_{number}", annotators(work.step.whole)
    texts, pool = part[["id", "text", "label"]], reading.demonstration_pool(work)
    folders = [folder / str(index) for index in range(len(members))]
    for index, (member, target) in enumerate(zip(members, folders, strict=True)):
        step = Annotations(with_overrides(member, f"annotate.seed={member.annotate.seed + number}", "augment.relabel"))
        adapter = {"adapter": path} if (path := work.parents.get(f"adapter/{index}")) else {}
        of_member = replace(work, config=step.config, parents={**work.parents, **adapter})
        annotate_with(of_member, with_adapter(of_member, member.llm), texts, pool, data.labels, target)
    if len(members) > 1:
        names = [annotator_name(member) for member in members]
        aggregate(folders, names, data.labels, work.config.annotate.combine, folder)
    votes = pd.read_parquet((folder if len(members) > 1 else folders[0]) / "annotations.parquet")
    shutil.rmtree(folder)
    shares = [row[f"soft_{label}"] for (_, row), label in zip(votes.iterrows(), part["label"], strict=True)]
    return reading.optional_labels(votes["label"]), np.array(shares)


def _predictions(work: Work, teacher: Teacher | None, part: pd.DataFrame, number: int) -> tuple[list[str | None], np.ndarray]:
    """The label that one of the teacher's models predicts for each row, and its probability of the requested label.

    A source that is an error was misclassified by the model not trained on it, which would misclassify its copies too. So
    the models trained on the source predict, a different one in each round.
    """
    assert teacher is not None
    model_of = (part["fold"].to_numpy(int) + 1 + number) % len(teacher.models)
    labels: list[str | None] = [None] * len(part)
    share = np.zeros(len(part))
    for model in np.unique(model_of).tolist():
        places = np.flatnonzero(model_of == model)
        result = predict(teacher.models[model], part["text"].iloc[places].tolist(), work.config.trainer)
        for row, place in enumerate(places.tolist()):
            labels[place] = result.predicted[row]
            label = part["label"].iloc[place]
            share[place] = result.probabilities[row, result.labels.index(label)] if label in result.labels else 0.0
    return labels, share


# -- output --------------------------------------------------------------------------------------------------------------


def _save(folder: Path, screening: Screening, prompts: dict[str, str], summary: dict[str, Any]) -> None:
    rows = screening.rows.drop(columns=["echo", "fold"], errors="ignore").assign(split="train", date=None, source="augment")
    first = ["id", "text", "label", "split", "date", "source", "method", "source_id", "model", "prompt", "writer_label"]
    rows = rows[[*first, *(name for name in rows.columns if name not in first)]]
    rows.to_parquet(folder / "augmented.parquet", index=False)
    dropped = pd.concat(screening.dropped, ignore_index=True)[["id", "text", "label", "method", "source_id", "reason"]]
    dropped.to_parquet(folder / "dropped.parquet", index=False)
    reasons = {str(reason): int(count) for reason, count in dropped["reason"].value_counts().items()}
    summary |= {f"augment/dropped_{reason.replace(' ', '_')}": count for reason, count in reasons.items()}
    summary |= {f"augment/kept_{method}": int((rows["method"] == method).sum()) for method in rows["method"].unique()}
    labelled = int(rows["label"].notna().sum())
    summary |= {"augment/kept": len(rows), "augment/labelled": labelled, "augment/unlabelled": len(rows) - labelled}
    write_json(folder / "prompts.json", prompts)
    write_json(folder / "summary.json", summary)
    log.info("dropped: %s", ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none")

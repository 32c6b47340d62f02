"""From texts to annotations: select demonstrations, request responses, count the votes.

Every response is cached as it arrives, and the cache is consulted first: a killed run resumes where it stopped, and a
larger limit, more samples or another calibration request only what is missing. Memory does not grow with the responses:
they are read back from the cache, in the order of the texts, when the annotations are written.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from findistill.config.fields import declares, result_settings
from findistill.config.instantiate import build
from findistill.core.files import write_json
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm import artifact, calibration, demonstrations, pricing, prompts
from findistill.llm.cache import ResponseCache
from findistill.llm.classifiers import ClassifierEngine
from findistill.llm.config import LLM, Annotate, Extract, Prompt, Shots
from findistill.llm.curve import CostCurve
from findistill.llm.demonstrations import DemonstrationTable
from findistill.llm.engine import Engine, Response, Sampling
from findistill.llm.identity import request_identity
from findistill.llm.runner import AnnotationRunner, PromptRows, ResponseTable
from findistill.llm.votes import draw_labels
from findistill.models.memory import check_memory

log = logging.getLogger(__name__)

HELD_OUT = 100  # most rows to calibrate on, and no more than half of the labelled ones
MIN_HELD_OUT = 25
RATIONALES = 4  # hand-written ones, as examples for an LLM that is to write more


def annotate(
    texts: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, llm: LLM, prompt: Prompt, shots: Shots, settings: Annotate,
    folder: Path, *, cache: Path, engine: Engine | None = None, scoring: str = "sum", max_memory: float | None = None,
    curve: CostCurve | None = None,
) -> None:  # fmt: skip
    """Label every text `settings.samples` times and write `annotations.parquet`, `samples.jsonl` and `summary.json`.

    `annotations.parquet` has one row per text, in the order of `texts`: id, text, label (the majority of the votes; None if
    no response named one), gold, agreement, n_valid, n_samples, soft_<label>..., rationale (of the first response for the
    label), confidence (mean over the responses for the label, where the server reports it), and, where the engine reads
    exact distributions, p_<label>... (at temperature 1, after calibration). `samples.jsonl` has one line per response.

    Args:
        texts: rows to annotate: id (unique), text, label (the source's own, or None).
        pool: labelled rows to take demonstrations from: text, label, and rationale where there is one.
        labels: the labels and their words.
        llm: the `llm` section.
        prompt: the `prompt` section.
        shots: the `shots` section.
        settings: the `annotate` section.
        folder: where the files go.
        cache: the folder of the response caches.
        engine: the annotator; by default the one that `llm` describes.
        scoring: how an engine in this process scores a label, see `Template`.
        max_memory: GB that a model in this process may use; by default what the device has free.
        curve: tracks the cost, for loggers; if several calls share one, it accumulates over them.

    Raises:
        UserError: a setting does not fit the texts, the pool or the model; the model does not fit into memory;
            `annotate.max_cost_usd` is spent; more than `annotate.max_failed` of the responses failed, or fewer than
            `annotate.min_readable` name a label. All responses received so far are cached.
    """
    template = replace(prompts.template(prompt, labels), scoring=scoring)
    if engine is None:
        check_memory(llm, max_memory, sampling=bool(template.steps))
        engine = build(llm, "llm")  # type: ignore[arg-type]
    if isinstance(engine, ClassifierEngine):
        vote(engine.scores(texts["text"].tolist(), pool, labels, settings.seed), texts, labels, settings, folder)
        return
    exact = engine.exact(template)
    rows, kind, held_out = plan_rows(texts, pool, labels, llm, shots, settings, exact)
    stop_at = None if exact else settings.stop_at
    sampling = Sampling(settings.temperature, settings.seed, settings.concurrency, settings.retries, stop_at)

    folder.mkdir(parents=True, exist_ok=True)
    with response_cache(cache, llm, prompt, shots, pool) as responses:
        runner = AnnotationRunner(
            engine, engine.prepare(template, sampling), sampling, 1 if exact else settings.samples, responses,
            pricing.Budget(settings.max_cost_usd), llm, settings.max_failed,
            # If generation itself is measured, unreadable responses count as missing coverage instead.
            0.0 if exact or scoring == "generation" else settings.min_readable,
            curve or CostCurve(),
        )  # fmt: skip
        if shots.rationales == "llm" and template.steps:
            with ResponseCache.shared(cache, request_identity(llm), _prompt_settings(prompt)) as rationales:
                generated = _generate_rationales(replace(runner, cache=rationales, min_readable=0.0), rows.demonstrations)
            rows.demonstrations = rows.demonstrations.with_rationales(generated)
        table = runner.run(rows)
        if exact:
            raw = table.scores()
            calibrations = _fit_calibration(kind, rows, raw, held_out, labels)
            summary = {"calibration": kind, "rows": len(held_out), "fitted": [asdict(each) for each in calibrations]}
            write_json(folder / "calibration.json", summary)
            scores = [calibrations[row % len(calibrations)].apply(row_scores) for row, row_scores in enumerate(raw[: len(texts)])]
            artifact.write(folder, texts, _draw_samples(rows, scores, table, settings), labels, scores)
        else:
            artifact.write(folder, texts, table.samples(len(texts)), labels, None)


def vote(logs: np.ndarray, texts: pd.DataFrame, labels: LabelSet, settings: Annotate, folder: Path) -> None:
    """Write the annotations of a classifier: samples drawn from its log-probabilities (n, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = [dict(zip(labels.names, row.tolist(), strict=True)) for row in logs]

    def samples() -> Iterator[list[Response]]:
        for text_id, own in zip(map(str, texts["id"]), scores, strict=True):
            names = draw_labels(own, settings.temperature, f"{settings.seed}\0{text_id}", settings.samples)
            yield [Response(text_id, at, label=name, raw=name, attempts=0, cost=0.0) for at, name in enumerate(names)]

    artifact.write(folder, texts, samples(), labels, scores)


def response_cache(folder: Path, llm: LLM, prompt: Prompt | Extract, shots: Shots, pool: pd.DataFrame) -> ResponseCache:
    """The cache of all jobs that may send the same requests: same llm, prompt, pool and selection of demonstrations."""
    selection = _selection(shots)
    return ResponseCache.shared(
        folder, request_identity(llm), _prompt_settings(prompt), selection, pool["text"].tolist() if selection else []
    )


def _prompt_settings(prompt: Prompt | Extract) -> dict[str, Any]:
    return {name: value for name, value in result_settings(prompt).items() if name != "name"}


def _selection(shots: Shots) -> dict[str, Any]:
    """The settings that change the demonstrations: none at k=0, and no seed for `nearest`, which is not random."""
    if not shots.k:
        return {}
    settings = result_settings(shots)
    return settings | ({"seed": None} if shots.selection == "nearest" else {})


def check_texts(texts: pd.DataFrame) -> None:
    """Raise UserError where there are no texts, or ids repeat."""
    if texts.empty:
        raise UserError("There are no texts to annotate: check data.limit and data.labelled.")
    if not texts["id"].is_unique:
        repeats = texts["id"][texts["id"].duplicated()]
        raise UserError(f"column id: {len(repeats)} rows repeat the id of another row ({repeats.iloc[0]}); ids must be unique.")


def plan_rows(
    texts: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, llm: LLM, shots: Shots, settings: Annotate, exact: bool
) -> tuple[PromptRows, str, pd.DataFrame]:
    """All rows to request with their demonstrations, the kind of calibration, and the held-out pool rows it is fitted on.

    Raises:
        UserError: there are no texts, ids repeat, or a setting does not fit the texts or the pool.
    """
    check_texts(texts)
    tuned = bool(getattr(llm, "adapter", ""))  # its prompts need no calibration, and it may have been trained on the pool
    setting = "none" if tuned and settings.calibration == "auto" else settings.calibration
    labelled = pool[pool["label"].isin(labels.names)] if len(pool) else pool
    kind = _calibration_kind(setting, exact, len(labelled))
    size = min(HELD_OUT, len(labelled) // 2) if kind == "pool" else 0
    held_out = labelled.sample(size, random_state=settings.seed).reset_index(drop=True)
    # Held-out rows are requested like the texts: they are never demonstrations, and theirs are selected in the same way.
    all_texts = pd.concat([texts["text"], held_out["text"]], ignore_index=True)
    recorded = declares(llm, "recorded")
    selected = demonstrations.none() if recorded else demonstrations.select(all_texts, pool, labels, shots)
    rows = PromptRows.from_frames(texts, held_out, selected)
    if kind == "contextual":
        rows.add_content_free()
    return rows, kind, held_out


def _generate_rationales(runner: AnnotationRunner, selected: DemonstrationTable) -> dict[int, tuple[str, ...]]:
    """The LLM's rationale for the gold label of each demonstration in use, prompted with hand-written ones.

    Those that name another label, or give the answer instead of a reason, are discarded: the model would imitate them.
    """
    without = [index for index in selected.used() if selected.candidates[index].rationale is None]
    rationales = {}
    header = runner.template.answer_header.lower()
    for label in runner.template.words:
        of_label = [index for index in without if selected.candidates[index].label == label]
        if not of_label:
            continue
        texts = [selected.candidates[index].text for index in of_label]
        frame = pd.DataFrame({"id": [f"shot:{text}" for text in texts], "text": texts})
        sampling = replace(runner.sampling, temperature=0.0, stop_at=None)
        greedy = replace(runner, template=replace(runner.template, known_label=label), sampling=sampling, samples=1)
        one_step = len(runner.template.steps) == 1
        examples = demonstrations.hand_written(label, RATIONALES) if one_step else demonstrations.none()
        table = greedy.run(PromptRows.from_frames(frame, frame.head(0), examples))
        for index, [response] in zip(of_label, table.samples(len(of_label)), strict=True):
            parts = response.rationale or ()
            if response.label == label and parts and not any(header in part.lower() for part in parts):
                rationales[index] = parts
    log.info("the llm wrote rationales for %d of %d demonstrations", len(rationales), len(without))
    return rationales


def _calibration_kind(setting: str, exact: bool, labelled: int) -> str:
    """The kind of calibration to use; `auto` is `pool` if the engine and the number of labelled rows allow it, else `none`.

    Raises:
        UserError: the setting needs what the engine or the pool does not have.
    """
    enough = labelled >= 2 * MIN_HELD_OUT
    if setting == "auto":
        return "pool" if exact and enough else "none"
    if setting != "none" and not exact:
        raise UserError(
            f"annotate.calibration={setting} needs label probabilities, which this llm does not return with this prompt.\n"
            "Use an in-process llm with prompt=direct, or annotate.calibration=none."
        )
    if setting == "pool" and not enough:
        raise UserError(
            f"annotate.calibration=pool needs {2 * MIN_HELD_OUT} labelled texts in the pool, and it has {labelled}.\n"
            "Raise data.labelled, or use annotate.calibration=none."
        )
    return setting


def _fit_calibration(
    kind: str, rows: PromptRows, raw: Sequence[dict[str, float]], held_out: pd.DataFrame, labels: LabelSet
) -> list[calibration.Calibration]:
    """One calibration, or one per text where demonstrations differ; in `raw`, the extra rows follow the texts."""
    texts, extra = raw[: len(rows.texts)], raw[len(rows.texts) :]
    if kind == "contextual":
        size = len(calibration.CONTENT_FREE)
        return [calibration.from_content_free(extra[start : start + size], labels) for start in range(0, len(extra), size)]
    if kind == "batch":
        return [calibration.from_texts(texts, labels)]
    if kind == "pool":
        return [calibration.from_labelled(extra, list(held_out["label"]), labels)]
    return [calibration.none(labels)]


def _draw_samples(
    rows: PromptRows, scores: Sequence[dict[str, float]], table: ResponseTable, settings: Annotate
) -> Iterator[list[Response]]:
    """Every text's samples, drawn from its calibrated distribution by seed and id. The first carries tokens and seconds."""
    for row, (text_id, row_scores) in enumerate(zip(map(str, rows.ids), scores, strict=True)):
        [distribution] = table.responses(row)
        labels = draw_labels(row_scores, settings.temperature, f"{settings.seed}\0{text_id}", settings.samples)
        yield [replace(distribution, id=text_id, label=labels[0], raw=labels[0])] + [
            Response(text_id, number, label=label, raw=label, attempts=0) for number, label in enumerate(labels[1:], 1)
        ]

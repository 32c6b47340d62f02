"""`stage=predict`: a model's answers for every row of files of any size.

The input is split into shards of rows, and these into windows. An engine answers several windows at a time; this module reads,
submits and writes them in order. A shard is one file, complete or absent: a killed run resumes with the missing ones.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from findistill.core.job import Job
from findistill.core.progress import ProgressMeter
from findistill.core.step import load, load_extra
from findistill.data.locations import input_files
from findistill.data.streams import Stream, open_stream
from findistill.inference.predictors import Answers, Predictor, open_predictor
from findistill.methods.predict import summary
from findistill.methods.predict.config import LLM
from findistill.methods.predict.local_engine import Submit
from findistill.methods.predict.models import LANGUAGE_MODELS, compare_with_float32, spec_of
from findistill.methods.predict.shards import Shards, new_names
from findistill.methods.predict.windows import Window, windows, windows_in

log = logging.getLogger(__name__)

FOLDER = "predictions"  # in the run folder


def run(job: Job) -> None:
    section, data = job.config.predict, job.config.data
    stream = open_stream(data, input_files(data))
    if section.model == LLM:
        spec = load(LANGUAGE_MODELS + "of_section")(job.config)
    else:
        spec = spec_of(str(job.step.inputs["model"].reference), section, job.config.trainer, job.store)
    predictor = open_predictor(spec)
    names = new_names(list(predictor.columns), section.prefix, stream.schema.names, f"data.path={data.path}")

    runtime = f"{spec.kind} {Path(spec.model).name if spec.model.endswith('.onnx') else 'torch'}"
    folder = Path(section.out).expanduser() if section.out else job.folder / FOLDER
    shards = Shards.claim(folder, section.format, {"key": job.step.key, "runtime": runtime}, own=not section.out)
    finished = {number: shards.record(number) for number in range(-(-stream.rows // section.shard_rows))}
    missing = [number for number, counts in finished.items() if counts is None]
    sizes = {number: min(section.shard_rows, stream.rows - number * section.shard_rows) for number in finished}
    done = stream.rows - sum(sizes[number] for number in missing)
    before = f", {done:,} rows already done" * bool(done)
    log.info("%s rows in %d shard%s%s, %s", f"{stream.rows:,}", len(finished), "s" * (len(finished) != 1), before, runtime)

    opened = _engine(section.engine)
    total = sum((counts for counts in finished.values() if counts), Counter())
    started = time.perf_counter()
    with (
        opened(spec, predictor, section, sum(windows_in(sizes[number]) for number in missing)) as (submit, ahead),
        ProgressMeter(desc="predicting", total=stream.rows, initial=done, unit="row", unit_scale=True) as meter,
    ):
        answered = answer(windows(stream, missing, section.shard_rows), submit, ahead)
        for number in missing:
            counts: Counter[str] = Counter()
            start, schema = time.perf_counter(), _schema(stream, predictor, names)
            with shards.writing(number, schema, counts) as writer:
                tables: list[pa.Table] = []
                for _ in range(windows_in(sizes[number])):
                    window, answers = next(answered)
                    tables.append(answers.table)
                    columns = _of_rows(pa.concat_tables(tables), window)
                    writer.write_table(pa.table([*window.table.columns, *columns.columns], schema=schema))
                    counts.update(summary.count_rows(columns, section.low_confidence))
                    counts.update(predicted=len(window.texts), pieces=answers.pieces, unseen=answers.unseen)
                    meter.update(len(window.table))
                counts["seconds"] = time.perf_counter() - start  # type: ignore[assignment]
            total += counts
    seconds = time.perf_counter() - started

    marks = predictor.columns == ("entities",)
    job.metrics |= summary.metrics(total, predictor.labels, predictor.profile, entities=marks)
    some = next((window.texts for window in windows(stream, [0], section.shard_rows)), [])
    job.metrics |= {f"predict/{name}": value for name, value in compare_with_float32(spec, some).items()}
    job.metrics["time/predict_s"] = total["seconds"]
    if missing:
        job.metrics["predict/rows_per_s"] = (stream.rows - done) / seconds
    if hourly := job.config.evaluate.usd_per_hour:
        job.metrics["cost/usd"] = hourly * total["seconds"] / 3600
    for line in summary.lines(job.metrics, predictor.profile):
        log.info("%s", line)
    if total["rows"] == total["empty"]:
        log.warning("no row has a text in the column %r; check data.text_column", data.text_column)
    log.info("predictions: %s", folder)


def answer(source: Iterator[Window], submit: Submit, ahead: int) -> Iterator[tuple[Window, Answers]]:
    """Each window with the answers for its texts, in order, while up to `ahead` further ones are being processed."""
    waiting: deque[tuple[Window, Callable[[], Answers]]] = deque()
    for window in source:
        waiting.append((window, submit(window.texts)))
        if len(waiting) > ahead:
            first, result = waiting.popleft()
            yield first, result()
    for first, result in waiting:
        yield first, result()


def _of_rows(answers: pa.Table, window: Window) -> pa.Table:
    """The answer for each row, null if it has no text; `answers` are those of the shard's distinct texts so far."""
    return answers.take(pa.array(window.answer, mask=window.answer < 0))


def _schema(stream: Stream, predictor: Predictor, names: list[str]) -> pa.Schema:
    answers = predictor.answer(["text"]).table.schema
    return pa.schema([*stream.schema, *(field.with_name(name) for field, name in zip(answers, names, strict=True))])


def _engine(name: str) -> Any:
    """The `opened` function of an engine, imported with its library; the extra has the engine's name."""
    return load_extra(f"findistill.methods.predict.{name}_engine:opened", name, f"predict.engine={name}")

"""From texts to entity mentions: like `findistill.llm.annotate`, but the samples vote on spans instead of labels."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from findistill.config.fields import declares
from findistill.config.instantiate import build
from findistill.data.spans import from_cell, to_cell
from findistill.llm import artifact, demonstrations, pricing
from findistill.llm.annotate import check_texts, response_cache
from findistill.llm.config import LLM, Annotate, Extract, Shots
from findistill.llm.curve import CostCurve
from findistill.llm.engine import Engine, Response, Sampling
from findistill.llm.estimate import NOTHING, Estimate, estimate_rows
from findistill.llm.extraction import Extracted, Extraction, demonstration_label, template
from findistill.llm.mentions import unfinished
from findistill.llm.runner import AnnotationRunner, PromptRows
from findistill.llm.span_votes import SpanVotes
from findistill.models.memory import check_memory

log = logging.getLogger(__name__)

MOST_OTHER = 100  # distinct names of other types that are counted

_SPAN = [("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())]
_SPANS, _VOTES = pa.list_(pa.struct(_SPAN)), pa.list_(pa.struct([*_SPAN, ("votes", pa.int64())]))
SCHEMA = pa.schema([
    ("id", pa.string()), ("text", pa.string()), ("spans", _VOTES), ("candidates", _VOTES), ("normalized", pa.list_(pa.string())),
    ("missing", pa.list_(pa.string())), ("n_valid", pa.int64()), ("n_samples", pa.int64()), ("gold", _SPANS),
])  # fmt: skip


def extract(
    texts: pd.DataFrame, pool: pd.DataFrame, types: Sequence[str], llm: LLM, prompt: Extract, shots: Shots, settings: Annotate,
    folder: Path, *, cache: Path, engine: Engine | None = None, max_memory: float | None = None, curve: CostCurve | None = None,
) -> None:  # fmt: skip
    """Have the LLM name each text's entities `settings.samples` times, and write the same files as `annotate`.

    `annotations.parquet` has one row per text, in the order of `texts`: id, text; spans (list of start, end, label, votes:
    those in more than half of the readable responses, see `SpanVotes.agreed`; None if no response is readable), candidates
    (the same for every span in any response, so that another threshold can be chosen later), normalized (the usual names,
    parallel to `spans`; None where unknown), missing (forms that do not occur in the text), n_valid (readable responses),
    n_samples, gold (the source's own spans, or None). `summary.json` also has the counts of `Tally`.

    Args:
        texts: rows to label: id (unique), text, and spans where the source has them.
        pool: labelled rows to take demonstrations from: text, spans.
        types: the types of entity.
        llm: the `llm` section.
        prompt: the `extract` section.
        shots: the `shots` section.
        settings: the `annotate` section.
        folder: where the files go.
        cache: the folder of the response caches.
        engine: the annotator; by default the one that `llm` describes.
        max_memory: GB that a model in this process may use; by default what the device has free.
        curve: tracks the cost, for loggers.

    Raises:
        UserError: as `annotate` does.
    """
    form = template(prompt, types)
    if engine is None:
        check_memory(llm, max_memory, sampling=True)
        engine = build(llm, "llm")  # type: ignore[arg-type]
    rows = plan(texts, pool, llm, shots)
    sampling = Sampling(settings.temperature, settings.seed, settings.concurrency, settings.retries, settings.stop_at)
    folder.mkdir(parents=True, exist_ok=True)
    with response_cache(cache, llm, prompt, shots, pool) as responses:
        runner = AnnotationRunner(
            engine, engine.prepare(form, sampling), sampling, settings.samples, responses, pricing.Budget(settings.max_cost_usd),
            llm, settings.max_failed, settings.min_readable, curve or CostCurve(),
        )  # fmt: skip
        table = runner.run(rows)
        counts = Tally(form)
        gold = texts["spans"].tolist() if "spans" in texts else [None] * len(texts)

        def record(row: int, text_id: str, text: str, own: Sequence[Response]) -> dict[str, Any]:
            return {"id": text_id, "text": text, **counts.row(text, own, gold[row])}

        artifact.write_rows(folder, texts, table.samples(len(texts)), SCHEMA, record, counts.totals)
    counts.log()


def plan(texts: pd.DataFrame, pool: pd.DataFrame, llm: LLM, shots: Shots) -> PromptRows:
    """All rows to request, with their demonstrations.

    Raises:
        UserError: there are no texts, ids repeat, or the pool has fewer rows than `shots.k`.
    """
    check_texts(texts)
    if declares(llm, "recorded") or not shots.k:
        selection = demonstrations.none()
    else:
        cells = pool["spans"].tolist() if "spans" in pool else [None] * len(pool)
        rows = zip(pool["text"], cells, strict=True)
        answers = [None if cell is None else demonstration_label(text, cell) for text, cell in rows]
        labelled = pool[["text"]].assign(label=pd.Series(answers, index=pool.index, dtype=object))
        selection = demonstrations.select(texts["text"], labelled, None, shots)
    return PromptRows(texts["id"], texts["text"], selection)


def estimate(
    texts: pd.DataFrame, pool: pd.DataFrame, types: Sequence[str], llm: LLM, prompt: Extract, shots: Shots, settings: Annotate, *,
    cache: Path,
) -> Estimate:  # fmt: skip
    """What `extract` with the same arguments would still request. Nothing is sent anywhere."""
    if declares(llm, "recorded"):
        return replace(NOTHING, texts=len(texts))
    responses = response_cache(cache, llm, prompt, shots, pool)
    return estimate_rows(plan(texts, pool, llm, shots), template(prompt, types), llm, settings, responses)


class Tally:
    """Counts over all responses, for `summary.json`.

    `cut`: truncated lists; `unreadable`: other responses without a list; `missing`: forms that do not occur in their text;
    `repeated`: forms that occur more than once; `unmatched`: responses with more or fewer normalised names than names;
    `other_types`: types or tags that are not among the data's labels; `tokens`, `aligned`: the tokens of answers of tokens
    and tags, and those of them found in the text.
    """

    def __init__(self, form: Extraction) -> None:
        self.form = form
        names = ("mentions", "cut", "unreadable", "missing", "repeated", "unmatched", "other_types", "tokens", "aligned")
        self.totals: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.other: Counter[str] = Counter()

    def row(self, text: str, responses: Sequence[Response], gold: Any) -> dict[str, Any]:
        """The columns of one text."""
        votes = SpanVotes.count(text, [self._read(each, text) for each in responses])
        spans = votes.agreed()
        return {
            "spans": votes.cell(spans) if votes.n_valid else None, "candidates": votes.cell(votes.counts),
            "normalized": [votes.normalized[span] for span in spans] if votes.n_valid else None, "missing": list(votes.missing),
            "n_valid": votes.n_valid, "n_samples": votes.n_samples, "gold": None if gold is None else to_cell(from_cell(gold)),
        }  # fmt: skip

    def _read(self, response: Response, text: str) -> Extracted | None:
        if response.error is not None:
            return None
        raw, cut = response.raw or "", bool(response.cut)
        answer = self.form.extract(raw, text, cut=cut)
        if answer is None:
            self.totals["cut" if cut or unfinished(raw) else "unreadable"] += 1
            return None
        self.totals.update(
            mentions=len(answer.spans), missing=len(answer.missing), repeated=len(answer.repeated),
            unmatched=int(answer.unmatched), other_types=len(answer.other), tokens=answer.tokens, aligned=answer.aligned,
        )  # fmt: skip
        self.other.update(name for name in answer.other if name in self.other or len(self.other) < MOST_OTHER)
        return answer

    def log(self) -> None:
        """Log the counts that matter, in one line."""
        what = {
            "cut": "truncated lists", "unreadable": "responses without a list", "missing": "names not found in the text",
            "unmatched": "lists of usual names dropped for a different length", "other_types": "names of other types",
        }  # fmt: skip
        counts = [f"{self.totals[name]:,} {words}" for name, words in what.items() if self.totals[name]]
        if self.totals["tokens"]:
            counts.append(f"{self.totals['aligned'] / self.totals['tokens']:.1%} of the answers' tokens aligned to their texts")
        log.info("%s", ", ".join([f"{self.totals['mentions']:,} mentions", *counts]))
        if self.other and not self.totals["mentions"]:
            name, number = self.other.most_common(1)[0]
            label = next(iter(self.form.words))
            log.warning(
                "no response has a name of type %s, but responses have %d of type %s: if it is the same type, set "
                "'extract.label_map={%s: %s}'", label, number, name, name, label,
            )  # fmt: skip

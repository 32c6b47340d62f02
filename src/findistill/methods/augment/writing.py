"""New texts from an LLM: with the same engines, prompts and response cache as labels.

A prompt that asks for a text is a `Template` with one step, the new text, followed by the label that the writer gives it.
So engines need no changes, and a killed run resumes from the cache.

The prompts follow TinyFinBERT's (Thomas 2024, data augmentation): new labelled sentences aimed at the teacher's hard cases,
paraphrases of misclassified sentences, variations that keep the sentiment, and similar unlabelled statements.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from findistill.config.instantiate import build
from findistill.core.hashing import digest
from findistill.data.labels import LabelSet
from findistill.data.text_key import text_key
from findistill.llm import pricing
from findistill.llm.cache import ResponseCache
from findistill.llm.config import LLM, Annotate, Prompt
from findistill.llm.curve import CostCurve
from findistill.llm.demonstrations import DemonstrationTable, none
from findistill.llm.engine import Engine, Response, Sampling
from findistill.llm.estimate import token_counter
from findistill.llm.identity import request_identity
from findistill.llm.prompts import Demonstration, Template, template
from findistill.llm.runner import AnnotationRunner, PromptRows, prompt_key
from findistill.methods.augment.config import Augment
from findistill.models import embeddings

STEP = "New text:"
TOTALS = ("requests", "tokens_in", "tokens_out", "seconds", "failed")
STEP_TOKENS = 96  # maximum length of a new text, in engines that limit steps
EXAMPLES = 3  # worked examples per prompt
USUAL_TOKENS = 45  # of a new text and its label, assumed for estimates
COUNTED = 50  # prompts per order that are tokenised for an estimate
PAIRED = 100  # rows of a kind that are paired into worked examples

PROMPTS = yaml.safe_load(files("findistill.methods.augment").joinpath("prompts.yaml").read_text("utf-8"))

# What models say instead of a text, or around it.
_TALK = re.compile(
    r"^\W*(sure|certainly|here is|here's)\b|\b(as an ai|language model|i cannot|rewritten|rephrased|new text|original text)\b"
    r"|sentiment:|sentiment (is|must|should)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Order:
    """Texts to be written by one method with one prompt: `number` for each row (id, text) of `sources`."""

    method: str
    label: str | None  # the requested label
    sources: pd.DataFrame
    template: Template
    examples: DemonstrationTable
    number: int

    @property
    def prompt(self) -> str:
        """A short hash of the prompt's wording, without source and examples."""
        return digest(self.template.task(), 8)


@dataclass
class Written:
    """New texts, one row each, and usage totals.

    `rows` has method, source_id, sample, text (None: unreadable or failed), label (the requested one), writer_label (the
    writer's own label), prompt (its hash), echo (whether the text repeats the prompt or talks about it).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)  # hash -> the prompt's wording
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TOTALS, 0.0))
    cost_usd: float | None = None

    def add(self, response: Response) -> None:
        self.totals["requests"] += response.attempts
        self.totals["failed"] += response.error is not None
        for name in ("tokens_in", "tokens_out", "seconds"):
            self.totals[name] += getattr(response, name)
        if response.cost is not None:
            self.cost_usd = (self.cost_usd or 0.0) + response.cost


def orders(
    sources: Mapping[str, pd.DataFrame], rows: pd.DataFrame, numbers: Mapping[str, int], labels: LabelSet,
    prompt: Prompt, settings: Augment,
) -> list[Order]:  # fmt: skip
    """What to request: one order per method, label and, for `generate`, label predicted by the teacher.

    Args:
        sources: by method, the rows to start from: id, text, label, predicted (the teacher's; only for `generate`).
        rows: all labelled rows, from which prompts take their examples.
        numbers: by method, new texts per source.
        labels: the labels and their wording.
        prompt: the `prompt` section.
        settings: the `augment` section.
    """
    result = []
    for method, of_method in sources.items():
        by = {"generate": ["label", "predicted"], "similar": []}.get(method, ["label"])
        groups = [(list(map(str, key)), group) for key, group in of_method.groupby(by)] if by else [([], of_method)]
        for names, group in groups:
            label, confused_with = (*names, None, None)[:2]
            template = _template(method, label, confused_with, labels, prompt, settings)
            examples = _examples(method, label, group, _kin(rows, label, confused_with), settings.seed)
            result.append(Order(method, label, group.reset_index(drop=True), template, examples, numbers[method]))
    return result


def _template(
    method: str, label: str | None, confused_with: str | None, labels: LabelSet, prompt: Prompt, settings: Augment
) -> Template:
    words = labels.words(prompt.wording)
    fields = {"label": words.get(label or "", ""), "taken": words.get(confused_with or "", ""), "words": settings.max_words}
    return Template(
        instruction=PROMPTS["instructions"][method].format(**fields), words=words, text_header=prompt.text_header,
        answer_header=template(prompt, labels).answer_header, steps=(STEP,), step_hints=("the new text, one line",),
        max_text_tokens=prompt.max_text_tokens, step_tokens=STEP_TOKENS,
    )  # fmt: skip


def _kin(rows: pd.DataFrame, label: str | None, confused_with: str | None) -> pd.DataFrame:
    """Rows of the same kind: the same error, if that is frequent enough for examples, else the same label."""
    if label is not None:
        rows = rows[rows["label"] == label]
    if confused_with is not None and (same := rows["predicted"] == confused_with).sum() >= 2 * (EXAMPLES + 1):
        rows = rows[same]
    return rows


def _examples(method: str, label: str | None, rows: pd.DataFrame, kin: pd.DataFrame, seed: int) -> DemonstrationTable:
    """Worked examples for each row: a text and a new text that could have been written from it.

    Most need no author: of two similar texts of one kind (same label, same error), one is an example of a new text like the
    other. A text is in one pair, and no prompt shows the pair of its source. Examples for `rephrase` are written by hand.
    """
    if method == "rephrase":
        own = [Demonstration(text, label or "", (other,)) for text, other in PROMPTS["rewrites"].get(label, ())]
        return DemonstrationTable(own, np.arange(len(own), dtype=np.int32)[None])
    pairs = _pairs(kin.sample(min(PAIRED, len(kin)), random_state=seed))
    number = min(EXAMPLES, len(pairs) - 1)
    if number < 1:
        return none()
    candidates = [Demonstration(text, of_other, (other,)) for (_, text, _), (_, other, of_other) in pairs]
    indexes = []
    for text_id in rows["id"]:
        others = [at for at, pair in enumerate(pairs) if text_id not in (pair[0][0], pair[1][0])]
        indexes.append(random.Random(f"{seed}\0{text_id}").sample(others, number))
    return DemonstrationTable(candidates, np.array(indexes, np.int32))


def _pairs(rows: pd.DataFrame) -> list[tuple[tuple[str, str, str], tuple[str, str, str]]]:
    """Disjoint pairs of rows (id, text, label): each row in turn is paired with the most similar free one."""
    parts = list(zip(rows["id"], rows["text"], rows["label"], strict=True))
    vectors = embeddings.embed(rows["text"].tolist())
    alike = vectors @ vectors.T
    free, pairs = list(range(len(parts))), []
    while len(free) > 1:
        row = free.pop(0)
        other = max(free, key=alike[row].__getitem__)
        free.remove(other)
        pairs.append((parts[row], parts[other]))
    return pairs


def write(
    orders: list[Order], llm: LLM, settings: Augment, pace: Annotate, *, cache: Path, engine: Engine | None = None,
    curve: CostCurve | None = None,
) -> Written:  # fmt: skip
    """Have an LLM write the ordered texts; cached responses are not requested again.

    Args:
        orders: what to write.
        llm: the `llm` section.
        settings: the `augment` section: temperature and seed.
        pace: the `annotate` section: `concurrency`, `retries`, `max_failed`, `max_cost_usd`.
        cache: the folder of the response cache.
        engine: the writer; by default built from `llm`.
        curve: tracks the cost over all orders, for loggers.

    Raises:
        UserError: the model cannot be reached, loaded or trusted; the budget is spent; too many responses failed.
    """
    written = Written()
    orders = [order for order in orders if len(order.sources) and order.number]
    if not orders:
        return written
    engine = engine or build(llm, "llm")  # type: ignore[arg-type]
    sampling = Sampling(settings.temperature, settings.seed, pace.concurrency, pace.retries)
    structured = engine.prepare(orders[0].template, sampling).structured
    budget, curve = pricing.Budget(pace.max_cost_usd), curve or CostCurve()
    with ResponseCache.shared(cache, request_identity(llm), "writing") as responses:
        for order in orders:
            runner = AnnotationRunner(
                engine=engine, template=replace(order.template, structured=structured), sampling=sampling, samples=order.number,
                cache=responses, budget=budget, llm=llm, max_failed=pace.max_failed, curve=curve,
            )  # fmt: skip
            # The method is part of the id, which engines seed sampling with, so that methods draw different samples.
            frame = order.sources.assign(id=[f"{order.method}:{source}" for source in order.sources["id"]])
            table = runner.run(PromptRows.from_frames(frame, frame.head(0), order.examples))
            written.prompts[order.prompt] = order.template.task()
            for row, of_source in enumerate(table.samples(len(frame))):
                for response in of_source:
                    written.add(response)
                context = [order.sources["text"].iloc[row]]
                context += [text for each in order.examples.of(row) for text in (each.text, *(each.rationale or ()))]
                written.rows += [_row(order, row, response, context) for response in of_source]
    return written


def filled_prompt(order: Order) -> str:
    """The prompt of an order's first source, filled in."""
    messages = order.template.messages(order.examples.of(0), order.sources["text"].iloc[0])
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def estimate(orders: list[Order], llm: LLM, prompt: Prompt, settings: Augment, *, cache: Path) -> str:
    """What `write` would request and cost, with counted prompts and an assumed length of new texts."""
    texts = missing = prompts = tokens_in = 0
    count = token_counter(llm)
    for order in (order for order in orders if len(order.sources) and order.number):
        cached = _cached_texts(order, llm, settings, cache)
        remaining = [row for row, number in enumerate(cached) if number < order.number]
        counted = remaining[:: max(1, len(remaining) // COUNTED)]
        tokens = [count(order.template, order.examples.of(row), order.sources["text"].iloc[row]) for row in counted]
        tokens_in += round(sum(tokens) / max(1, len(tokens)) * len(remaining))
        texts += len(cached) * order.number
        missing += sum(order.number - cached[row] for row in remaining)
        prompts += len(remaining)
    tokens_out = missing * USUAL_TOKENS
    cost = pricing.cost(llm.price, tokens_in, tokens_out)
    dollars = "price unknown (llm.price.per_million_in, llm.price.per_million_out)" if cost is None else f"${cost:,.4f}"
    return (
        f"{texts:,} texts to write, {texts - missing:,} of them in the cache\n"
        f"{prompts:,} prompts, {tokens_in:,} prompt tokens if the server supports `n`, about {tokens_out:,} completion tokens\n"
        f"cost: {dollars}"
    )


def _cached_texts(order: Order, llm: LLM, settings: Augment, cache: Path) -> list[int]:
    """How many texts the cache has for each source, with or without structured output."""
    cached = [0] * len(order.sources)
    responses = ResponseCache.shared(cache, request_identity(llm), "writing")
    if not responses.path.exists():
        return cached
    identity, sampling = request_identity(llm), (settings.temperature, settings.seed)
    sources = [(text, order.examples.of(row)) for row, text in enumerate(order.sources["text"])]
    with responses:
        for variant in (order.template, replace(order.template, structured=True)):
            keys = [prompt_key(text, examples, variant, identity, sampling) for text, examples in sources]
            numbers = [sum(sample < order.number for sample in offsets) for offsets in responses.offsets(keys)]
            cached = [max(pair) for pair in zip(cached, numbers, strict=True)]
    return cached


def _row(order: Order, row: int, response: Response, context: list[str]) -> dict[str, Any]:
    # A response without a label is not in the requested format: it may be a refusal, or truncated.
    text = response.rationale[0].strip('"“” ') if response.rationale and response.label else None
    return {
        "method": order.method, "source_id": order.sources["id"].iloc[row], "sample": response.sample, "text": text or None,
        "label": order.label, "writer_label": response.label, "prompt": order.prompt,
        "echo": text is not None and echoes(text, order.template, context),
    }  # fmt: skip


def echoes(text: str, template: Template, context: list[str]) -> bool:
    """Whether a text repeats a part of its prompt, or talks about the request instead of being a text."""
    normalised = text_key(text)
    parts = [template.task(), *context]
    return bool(_TALK.search(text)) or "<" in text or any(f" {normalised} " in f" {text_key(part)} " for part in parts)

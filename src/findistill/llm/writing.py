"""New texts from an LLM: through the same engines, prompts and journal as labels.

A prompt that asks for a text is a `Template` with one step, the new text; the label that follows it is how the writer
itself reads what it wrote. So nothing here is new to an engine, and a killed run goes on where it stopped.

The prompts follow TinyFinBERT's (Thomas 2024, data augmentation): new labelled sentences aimed at what the teacher finds
hard, misclassified sentences said differently, variations that keep the sentiment, and similar statements without a label.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.data.normalise import normalise
from findistill.llm import money
from findistill.llm.annotate import annotation_key
from findistill.llm.asking import Desk, Rows, key_of
from findistill.llm.demonstrations import Chosen, none
from findistill.llm.engine import Answer, Engine, Sampling
from findistill.llm.estimate import counter
from findistill.llm.journal import Journal
from findistill.llm.prompts import Demonstration, Template
from findistill.runs.store import digest

if TYPE_CHECKING:
    import pandas as pd

    from findistill.settings.schema import Config

STEP = "New text:"
STEP_TOKENS = 96  # of a new text at most, where the engine counts them
EXAMPLES = 3  # worked examples in a prompt
USUAL_TOKENS = 45  # of a new text and its label, before any was seen
COUNTED = 50  # prompts of an order that are tokenised for an estimate
PAIRED = 100  # rows of a kind that are paired to worked examples
LABELLED = ("generate", "rephrase", "vary")  # methods whose texts have a label

INSTRUCTIONS = {
    "generate": (
        "Some financial texts are {label} for an investor although a reader may take them for {taken}. The text below is one "
        "of them. Write a new text that is hard in the same way: about another company and another event, "
        "in the style of financial news, of at most {words} words. Its sentiment must be {label}."
    ),
    "rephrase": (
        "Say a financial text in other words: change wording and structure, keep the facts and about the length. "
        "The sentiment of the text is {label}, and must stay {label}."
    ),
    "vary": (
        "Write a variation of a financial text: another company, other figures, wording and structure, about the same length. "
        "The sentiment of the text is {label}, and must stay {label}."
    ),
    "similar": (
        "Write a financial text that is like the one below in topic, style and length, but says something else. "
        "It may have any sentiment."
    ),
}

# Label, text, the same in other words; for labels of other names there are none.
REWRITES = (
    (
        "positive",
        "Operating profit rose to EUR 12.4 mn from EUR 9.1 mn a year earlier.",
        "The company earned EUR 12.4 mn at the operating level, up from EUR 9.1 mn in the same period last year.",
    ),
    (
        "positive",
        "Shares of Harbour Foods jump after it wins a five-year supply contract",
        "Winning a supply deal that runs for five years sends Harbour Foods' stock sharply higher",
    ),
    (
        "negative",
        "The carmaker cut its outlook and said that demand in the second half would be weak.",
        "Expecting little demand for the rest of the year, the maker of cars has lowered its forecast.",
    ),
    (
        "negative",
        "Net sales fell by 8% and 120 employees will be laid off.",
        "With revenue down 8 percent, the group is to shed 120 jobs.",
    ),
    (
        "neutral",
        "The annual general meeting will be held in Turku on 14 March.",
        "Shareholders are invited to the yearly meeting, which takes place on March 14 in Turku.",
    ),
    (
        "neutral",
        "The paper mill employs about 300 people and makes packaging board.",
        "Some 300 people work at the mill, whose product is board for packaging.",
    ),
)

# What models say instead of a text, or around it.
_TALK = re.compile(
    r"^\W*(sure|certainly|here is|here's)\b|\b(as an ai|language model|i cannot|rewritten|rephrased|new text|original text)\b"
    r"|sentiment:|sentiment (is|must|should)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Order:
    """Texts to be written by one method under one prompt: `number` for each row (id, text) of `sources`."""

    method: str
    label: str | None  # the label asked for
    sources: "pd.DataFrame"
    template: Template
    chosen: Chosen
    number: int

    @property
    def prompt(self) -> str:
        """A short hash of the prompt's words, sources and examples left out."""
        return digest(self.template.task(), 8)


@dataclass
class Written:
    """New texts, a row each, and what they took.

    `rows` has method, source_id, sample, text (None: unreadable or failed), label (the one asked for), writer_label (how the
    writer reads its text), prompt (its hash), echo (whether the text repeats the prompt or talks about it).
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)  # hash -> the prompt's words
    totals: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("requests", "tokens_in", "tokens_out", "seconds", "failed"), 0.0)
    )
    cost_usd: float | None = None

    def add(self, answers: "list[Answer]") -> None:
        self.totals["requests"] += sum(each.attempts for each in answers)
        self.totals["failed"] += sum(each.error is not None for each in answers)
        for name in ("tokens_in", "tokens_out", "seconds"):
            self.totals[name] += sum(getattr(each, name) for each in answers)
        for each in answers:
            if each.cost is not None:
                self.cost_usd = (self.cost_usd or 0.0) + each.cost


def orders(
    sources: "Mapping[str, pd.DataFrame]", rows: "pd.DataFrame", numbers: Mapping[str, int], labels: LabelSet, config: "Config"
) -> list[Order]:
    """What to ask for: one order for each method, label and, for `generate`, label that the teacher gave.

    Args:
        sources: by method, the rows to start from: id, text, label, predicted (the teacher's; only for `generate`).
        rows: all labelled rows, from which prompts take their examples.
        numbers: by method, new texts a source.
        labels: the labels and their words.
        config: its prompt and augment sections are read.
    """
    made = []
    for method, of_method in sources.items():
        by = {"generate": ["label", "predicted"], "similar": []}.get(method, ["label"])
        groups = [(list(map(str, key)), group) for key, group in of_method.groupby(by)] if by else [([], of_method)]
        for asked, group in groups:
            label, taken = (*asked, None, None)[:2]
            template = _template(method, label, taken, labels, config)
            chosen = _examples(method, label, group, _kin(rows, label, taken), config.augment.seed)
            made.append(Order(method, label, group.reset_index(drop=True), template, chosen, numbers[method]))
    return made


def _template(method: str, label: str | None, taken: str | None, labels: LabelSet, config: "Config") -> Template:
    words = labels.words(config.prompt.wording)
    told = {"label": words.get(label or "", ""), "taken": words.get(taken or "", ""), "words": config.augment.max_words}
    return Template(
        instruction=INSTRUCTIONS[method].format(**told),
        words=words,
        text_header=config.prompt.text_header,
        answer_header=config.prompt.answer_header,
        steps=(STEP,),
        step_hints=("the new text, one line",),
        max_text_tokens=config.prompt.max_text_tokens,
        step_tokens=STEP_TOKENS,
    )


def _kin(rows: "pd.DataFrame", label: str | None, taken: str | None) -> "pd.DataFrame":
    """Rows of the same kind: the same error, if that is frequent enough to give examples, else the same label."""
    if label is not None:
        rows = rows[rows["label"] == label]
    if taken is not None and (same := rows["predicted"] == taken).sum() >= 2 * (EXAMPLES + 1):
        rows = rows[same]
    return rows


def _examples(method: str, label: str | None, rows: "pd.DataFrame", kin: "pd.DataFrame", seed: int) -> Chosen:
    """Worked examples for each row: a text and what might have been written from it.

    Nobody has to write these: two similar texts of one kind (the same label; the same error) are each a new text like the
    other. A text is in one pair, and no prompt shows the pair of its source. Rewriting has examples of our own.
    """
    import numpy as np

    if method == "rephrase":
        own = [Demonstration(text, name, (other,)) for name, text, other in REWRITES if name == label]
        return Chosen(own, np.arange(len(own), dtype=np.int32)[None])
    pairs = _pairs(kin.sample(min(PAIRED, len(kin)), random_state=seed))
    number = min(EXAMPLES, len(pairs) - 1)
    if number < 1:
        return none()
    candidates = [Demonstration(text, of_other, (other,)) for (_, text, _), (_, other, of_other) in pairs]
    indexes = []
    for text_id in rows["id"]:
        others = [at for at, pair in enumerate(pairs) if text_id not in (pair[0][0], pair[1][0])]
        indexes.append(random.Random(f"{seed}\0{text_id}").sample(others, number))
    return Chosen(candidates, np.array(indexes, np.int32))


def _pairs(rows: "pd.DataFrame") -> list[tuple[tuple[str, str, str], tuple[str, str, str]]]:
    """Disjoint pairs of rows (id, text, label): each row in turn takes the most similar one that is left."""
    from findistill.data import embeddings

    parts = list(zip(rows["id"], rows["text"], rows["label"], strict=True))
    vectors = embeddings.embed(rows["text"].tolist())
    alike = vectors @ vectors.T
    left, pairs = list(range(len(parts))), []
    while len(left) > 1:
        row = left.pop(0)
        other = max(left, key=alike[row].__getitem__)
        left.remove(other)
        pairs.append((parts[row], parts[other]))
    return pairs


def write(wanted: list[Order], config: "Config", journal: Path, engine: Engine | None = None) -> Written:
    """Have an LLM write what is wanted; what `journal` has is not asked for again.

    Temperature and seed are those of `config.augment`; pace and budget (`concurrency`, `retries`, `max_failed`,
    `max_cost_usd`) those of `config.annotate`.

    Raises:
        UserError: the model cannot be reached, loaded or trusted; the budget is spent; too many answers failed.
    """
    from findistill.settings.build import build

    written = Written()
    wanted = [order for order in wanted if len(order.sources) and order.number]
    if not wanted:
        return written
    engine = engine or build(config.llm)  # type: ignore[arg-type]
    pace = config.annotate
    sampling = Sampling(config.augment.temperature, config.augment.seed, pace.concurrency, pace.retries)
    structured = engine.prepare(wanted[0].template, sampling).structured
    budget = money.Budget(pace.max_cost_usd)
    with Journal(journal) as answers:
        for order in wanted:
            desk = Desk(
                engine=engine,
                template=replace(order.template, structured=structured),
                sampling=sampling,
                samples=order.number,
                journal=answers,
                budget=budget,
                price=config.llm.price,
                most_out=int(getattr(config.llm, "max_tokens", 0)),
                identity=annotation_key(config)["llm"],
                max_failed=pace.max_failed,
            )
            # The method is part of the id, from which engines draw, so that no two methods draw alike.
            frame = order.sources.assign(id=[f"{order.method}:{each}" for each in order.sources["id"]])
            given = desk.ask(Rows.of(frame, frame.head(0), order.chosen))
            written.prompts[order.prompt] = order.template.task()
            for row, of_source in enumerate(given.samples(len(frame))):
                written.add(of_source)
                shown = [order.sources["text"].iloc[row]]
                shown += [said for each in order.chosen.of(row) for said in (each.text, *(each.rationale or ()))]
                written.rows += [_row(order, row, answer, shown) for answer in of_source]
    return written


def shown(order: Order) -> str:
    """The prompt of an order's first source, filled in."""
    messages = order.template.messages(order.chosen.of(0), order.sources["text"].iloc[0])
    return "\n\n".join(f"[{each['role']}]\n{each['content']}" for each in messages)


def estimate(wanted: list[Order], config: "Config", journal: Path) -> str:
    """What `write` would ask and cost, told in two lines: prompts counted, texts taken to be of usual length."""
    texts = lacking = prompts = tokens_in = 0
    count = counter(config)
    for order in (order for order in wanted if len(order.sources) and order.number):
        have = _known(order, config, journal)
        left = [row for row, known in enumerate(have) if known < order.number]
        sampled = left[:: max(1, len(left) // COUNTED)]
        tokens = [count(order.template, order.chosen.of(row), order.sources["text"].iloc[row]) for row in sampled]
        tokens_in += round(sum(tokens) / max(1, len(tokens)) * len(left))
        texts += len(have) * order.number
        lacking += sum(order.number - have[row] for row in left)
        prompts += len(left)
    tokens_out = lacking * USUAL_TOKENS
    cost = money.cost(config.llm.price, tokens_in, tokens_out)
    paid = "price not known (llm.price.per_million_in, llm.price.per_million_out)" if cost is None else f"${cost:,.4f}"
    return (
        f"{texts:,} texts to write, {texts - lacking:,} of them there already\n"
        f"{prompts:,} prompts, {tokens_in:,} tokens to read where `n` is honoured, about {tokens_out:,} to write\ncost: {paid}"
    )


def _known(order: Order, config: "Config", journal: Path) -> list[int]:
    """How many texts the journal has for each source, in whichever form they were asked for."""
    known = [0] * len(order.sources)
    if not journal.exists():
        return known
    identity, drawn = annotation_key(config)["llm"], (config.augment.temperature, config.augment.seed)
    with Journal(journal) as answers:
        for form in (order.template, replace(order.template, structured=True)):
            keys = [key_of(text, order.chosen.of(row), form, identity, drawn) for row, text in enumerate(order.sources["text"])]
            found = [sum(sample < order.number for sample in places) for places in answers.places(keys)]
            known = [max(pair) for pair in zip(known, found, strict=True)]
    return known


def _row(order: Order, row: int, answer: Answer, shown: list[str]) -> dict[str, Any]:
    # An answer that names no label is not in the form asked for: it may be a refusal, or cut off.
    text = answer.rationale[0].strip('"“” ') if answer.rationale and answer.label else None
    return {
        "method": order.method,
        "source_id": order.sources["id"].iloc[row],
        "sample": answer.sample,
        "text": text or None,
        "label": order.label,
        "writer_label": answer.label,
        "prompt": order.prompt,
        "echo": text is not None and echoes(text, order.template, shown),
    }


def echoes(text: str, template: Template, shown: list[str]) -> bool:
    """Whether a text repeats a part of its prompt, or talks about the task instead of being a text."""
    said = normalise(text)
    parts = [template.task(), *shown]
    return bool(_TALK.search(text)) or "<" in text or any(f" {said} " in f" {normalise(part)} " for part in parts)


def journal_name(config: "Config") -> str:
    """The journal of all texts that this llm ever wrote in a store."""
    return f"{digest([annotation_key(config)['llm'], 'writing'])}.jsonl"

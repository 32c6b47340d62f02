"""What an annotation would ask and cost, told before anything is asked.

Prompt tokens are counted with a tokenizer. What only answers can tell (how long they are, whether the server takes several
samples in one call, how fast it is) is measured on the answers that the journal already has: annotate 20 texts first, and
the estimate for the rest rests on them; nothing of theirs is paid for twice.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.llm import money, prompts
from findistill.llm.annotate import annotation_key, planned
from findistill.llm.asking import CHUNK, key_of
from findistill.llm.engine import Answer
from findistill.llm.journal import Journal
from findistill.llm.prompts import Demonstration, Template, one_line
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    import pandas as pd

    from findistill.settings.schema import Config

COUNTED = 500  # prompts that are tokenised; where there are more, the others are taken to be like them
FEWEST_MEASURED = 5  # answered texts that the measured part of an estimate rests on at least
STEP_TOKENS = 30  # of one sentence, where nothing has been measured


@dataclass(frozen=True)
class Estimate:
    """What is left to ask. `measured` tells on how many answered texts it rests; 0: prompts counted, answers assumed."""

    texts: int
    answered: int  # texts that the journal has in full
    requests: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float | None
    measured: int

    def text(self) -> str:
        cost = "price not known (llm.price.per_million_in, llm.price.per_million_out)"
        if self.cost_usd is not None:
            cost = f"${self.cost_usd:,.4f}" if self.cost_usd < 1 else f"${self.cost_usd:,.2f}"
        basis = f"measured on {self.measured} answered texts"
        if not self.measured:
            basis = "answers are assumed to be short and `n` to be honoured; annotate.limit=20 first makes it a measurement"
        time = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return (
            f"{self.texts:,} texts, {self.answered:,} of them answered before\n"
            f"{self.requests:,} requests, {self.tokens_in:,} tokens to read, {self.tokens_out:,} to write{time}\n"
            f"cost: {cost}\n({basis})"
        )


def estimate(
    texts: "pd.DataFrame", pool: "pd.DataFrame", labels: LabelSet, config: "Config", journal: Path, *, exact: bool = False
) -> Estimate:
    """What `annotate` with the same arguments would still ask. Nothing is sent anywhere.

    Args:
        exact: whether the engine reads one distribution a text instead of drawing samples.

    Raises:
        UserError: a setting does not fit the texts or the pool.
    """
    settings = config.annotate
    samples = 1 if exact else settings.samples
    rows, _, _ = planned(texts, pool, labels, config, exact)
    every = [each for start in range(0, len(rows), CHUNK) for each in rows.chunk(start)]
    asked, shown = [text for _, text, _ in every], [rows.chosen.of(row) for _, _, row in every]
    count = counter(config)
    template, given = _answered(asked, shown, prompts.template(config.prompt, labels), config, journal, exact)
    whole = {row for row, answers in given.items() if len(answers) >= samples}
    left = [row for row in range(len(asked)) if row not in whole]
    lacking = sum(samples - len(given.get(row, ())) for row in left)
    step = max(1, len(left) // COUNTED)
    counted = [count(template, shown[row], asked[row]) for row in left[::step]]
    prompt_tokens = sum(counted) / len(counted) * len(left) if counted else 0.0

    measured = sorted(whole)[:COUNTED]
    if len(measured) >= FEWEST_MEASURED:
        answers = [answer for row in measured for answer in given[row]]
        expected = sum(count(template, shown[row], asked[row]) for row in measured)
        calls = sum(answer.attempts for answer in answers) / len(measured)
        read = sum(answer.tokens_in for answer in answers) / expected
        written = sum(answer.tokens_out for answer in answers) / len(answers)
        side_by_side = 1 if exact or not hasattr(config.llm, "base_url") else settings.concurrency
        took = sum(answer.seconds for answer in answers) / len(measured) / side_by_side
    else:
        measured, calls, read, took = [], 1.0, 1.0, None
        written = 0.0 if exact else _assumed(template, config)
    tokens_in, tokens_out = round(prompt_tokens * read), round(lacking * written)
    return Estimate(
        texts=len(texts),
        answered=sum(row < len(texts) for row in whole),
        requests=round(len(left) * calls),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_usd=money.cost(config.llm.price, tokens_in, tokens_out),
        seconds=None if took is None else took * len(left),
        measured=len(measured),
    )


def _answered(
    asked: list[str],
    shown: list[tuple[Demonstration, ...]],
    template: Template,
    config: "Config",
    journal: Path,
    exact: bool,
) -> tuple[Template, dict[int, list[Answer]]]:
    """The answers that the journal has by row, and the template in the form in which they were asked."""
    identity = annotation_key(config)["llm"]
    drawn = None if exact else (config.annotate.temperature, config.annotate.seed)
    forms = [template, replace(template, structured=True)]
    if not journal.exists():
        return replace(template, structured=getattr(config.llm, "structured", "never") == "always"), {}
    samples = 1 if exact else config.annotate.samples
    found: dict[int, list[Answer]] = {}
    with Journal(journal) as answers:
        for form in forms:
            keys = [key_of(text, of_text, form, identity, drawn) for text, of_text in zip(asked, shown, strict=True)]
            for row, places in enumerate(answers.places(keys)):
                known = [answers.read(place) for sample, place in places.items() if sample < samples]
                if ok := [each for each in known if each.error is None]:
                    found[row] = ok
            if found:
                return form, found
    return template, {}


def counter(config: "Config") -> Any:
    """(template, demonstrations, text) -> tokens of the prompt, texts cut as the engine cuts them."""
    from transformers import AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(locate(getattr(config.llm, "tokenizer", config.llm.model)))

    def cut(text: str) -> str:
        return " ".join(one_line(text).split()[: config.prompt.max_text_tokens])

    def count(template: Template, shown: tuple[Demonstration, ...], text: str) -> int:
        told = [replace(each, text=cut(each.text)) for each in shown]
        if tokenizer.chat_template and getattr(config.llm, "chat", True):
            messages = template.messages(told, cut(text))
            return len(tokenizer(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)).input_ids)
        return len(tokenizer(template.plain(told, cut(text))).input_ids)

    return count


def _assumed(template: Template, config: "Config") -> float:
    """Tokens of an answer before any was seen: the label, and a sentence for each step."""
    form = 4 * (len(template.steps) + 1) if template.structured or template.steps else 2
    return min(form + STEP_TOKENS * len(template.steps), getattr(config.llm, "max_tokens", 10**6))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""What an annotation would request and cost, before anything is sent.

Prompt tokens are counted with a tokenizer. What only responses can show (their length, whether the server draws several
samples in one call, its speed) is measured on cached responses: annotate 20 texts first, and the estimate for the rest
builds on them; no text is paid for twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from findistill.config.fields import declares
from findistill.core.step import load
from findistill.data.labels import LabelSet
from findistill.llm import pricing, prompts
from findistill.llm.annotate import check_texts, plan_rows, response_cache
from findistill.llm.cache import ResponseCache
from findistill.llm.config import LLM, Annotate, Prompt, Shots
from findistill.llm.engine import Response
from findistill.llm.identity import request_identity
from findistill.llm.prompts import Demonstration, Template
from findistill.llm.runner import PromptRows, prompt_key
from findistill.llm.text import truncate
from findistill.models.weights import NO_CODE, loading, locate

COUNTED = 200  # prompts that are built and tokenised; any others are assumed to be like them
MIN_MEASURED = 5  # fewest annotated texts that a measured estimate builds on

Counter = Callable[[Template, tuple[Demonstration, ...], str], int]


@dataclass(frozen=True)
class Estimate:
    """The remaining work. `measured`: annotated texts that it builds on; 0: prompts are counted, responses assumed."""

    texts: int
    cached: int  # texts whose responses are all in the cache
    requests: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float | None
    measured: int

    @property
    def _requests(self) -> str:
        time = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return f"{self.requests:,} requests, {self.tokens_in:,} prompt tokens, {self.tokens_out:,} completion tokens{time}"

    @property
    def _dollars(self) -> str:
        return "" if self.cost_usd is None else f"${self.cost_usd:,.{4 if self.cost_usd < 1 else 2}f}"

    def line(self) -> str:
        """Requests, tokens and dollars."""
        return ", ".join(filter(None, (self._requests, self._dollars)))

    def text(self) -> str:
        """As `line`, with the number of texts and the basis of the estimate."""
        cost = self._dollars or "price unknown (llm.price.per_million_in, llm.price.per_million_out)"
        basis = f"measured on {self.measured} annotated texts"
        if not self.measured:
            basis = "assuming short responses and a server that supports `n`; run with annotate.limit=20 first to measure instead"
        return f"{self.texts:,} texts, {self.cached:,} of them in the cache\n{self._requests}\ncost: {cost}\n({basis})"


NOTHING = Estimate(0, 0, 0, 0, 0, 0.0, None, 0)  # recorded answers request nothing


def estimate(
    texts: pd.DataFrame, pool: pd.DataFrame, labels: LabelSet, llm: LLM, prompt: Prompt, shots: Shots, settings: Annotate, *,
    cache: Path, exact: bool = False,
) -> Estimate:  # fmt: skip
    """What `annotate` with the same arguments would still request. Nothing is sent anywhere.

    Args:
        exact: whether the engine reads one distribution a text instead of drawing samples.

    Raises:
        UserError: a setting does not fit the texts or the pool.
    """
    if declares(llm, "recorded"):
        return replace(NOTHING, texts=len(texts))
    check_texts(texts)
    responses = response_cache(cache, llm, prompt, shots, pool)
    # Finding cached responses takes every prompt, hence all nearest demonstrations; without a cache, a sample suffices.
    counted = texts if responses.path.exists() else texts.iloc[:: max(1, len(texts) // COUNTED)]
    planned, _, _ = plan_rows(counted, pool, labels, llm, shots, settings, exact)
    template = prompts.template(prompt, labels)
    return estimate_rows(planned, template, llm, settings, responses, exact=exact, more=len(texts) - len(counted))


def estimate_rows(
    planned: PromptRows, template: Template, llm: LLM, settings: Annotate, responses: ResponseCache, *, exact: bool = False,
    more: int = 0,
) -> Estimate:  # fmt: skip
    """What remains to be requested for these rows, and for `more` texts like them, under this prompt."""
    samples = 1 if exact else settings.samples
    rows = [(text, examples) for _, text, examples in planned]
    count = token_counter(llm)
    sampling = None if exact else (settings.temperature, settings.seed)
    template, cached, measured = _cached(rows, template, llm, responses, samples, sampling)
    complete = {row for row, usable in cached.items() if usable >= samples}
    remaining = [row for row in range(len(rows)) if row not in complete]
    missing = sum(samples - cached.get(row, 0) for row in remaining) + samples * more
    n_remaining = len(remaining) + more

    def prompt_tokens(sample: Sequence[int]) -> int:
        return sum(count(template, examples, text) for text, examples in (rows[row] for row in sample))

    sample = remaining[:: max(1, len(remaining) // COUNTED)]
    total = prompt_tokens(sample) / max(1, len(sample)) * n_remaining

    if len(measured) >= MIN_MEASURED:
        usage = pd.DataFrame([response for of_row in measured.values() for response in of_row])
        calls = usage["attempts"].sum() / len(measured)
        factor = usage["tokens_in"].sum() / max(1, prompt_tokens([*measured]))
        length = usage["tokens_out"].mean()
        in_cache = usage["tokens_cached"].sum() / max(1, usage["tokens_in"].sum())
        parallel = 1 if declares(llm, "local") else settings.concurrency
        seconds = float(usage["seconds"].sum() / len(measured) / parallel * n_remaining) or None  # batches report none
    else:
        measured, calls, factor, seconds, in_cache = {}, 1.0, 1.0, None, 0.0
        length = 0.0 if exact else float(min(template.assumed_tokens, getattr(llm, "max_tokens", 10**6)))
    tokens_in, tokens_out = round(total * factor), round(missing * length)
    texts = len(planned.texts) + more
    cost = pricing.cost(llm.price, tokens_in, tokens_out, round(tokens_in * in_cache))
    return Estimate(
        texts=texts, cached=sum(row < len(planned.texts) for row in complete), requests=round(n_remaining * calls),
        tokens_in=tokens_in, tokens_out=tokens_out, cost_usd=cost,
        seconds=seconds, measured=len(measured),
    )  # fmt: skip


def _cached(
    rows: Sequence[tuple[str, tuple[Demonstration, ...]]], template: Template, llm: LLM, cache: ResponseCache, samples: int,
    sampling: tuple[float, int] | None,
) -> tuple[Template, dict[int, int], dict[int, list[Response]]]:  # fmt: skip
    """The template as it was requested, how many responses of each row are cached, and those of the first complete rows."""
    if not cache.path.exists():
        return replace(template, structured=getattr(llm, "structured", "never") == "always"), {}, {}
    identity = request_identity(llm)
    cached: dict[int, int] = {}
    measured: dict[int, list[Response]] = {}
    with cache:
        for variant in (template, replace(template, structured=True)):
            keys = [prompt_key(text, examples, variant, identity, sampling) for text, examples in rows]
            for row, offsets in enumerate(cache.offsets(keys)):
                responses = [cache.read(offset) for sample, offset in offsets.items() if sample < samples]
                if usable := [response for response in responses if response.error is None]:
                    cached[row] = len(usable)
                    if len(usable) == samples and len(measured) < COUNTED:
                        measured[row] = usable
            if cached:
                return variant, cached, measured
    return template, {}, {}


def token_counter(llm: LLM) -> Counter:
    """A function (template, demonstrations, text) -> prompt tokens, with texts truncated as the engine does.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    setting = "model" if declares(llm, "in_process") else "tokenizer"
    reference = getattr(llm, setting, "embedded:smollm2")
    with loading(f"llm.{setting}={reference}: the tokenizer for counting tokens cannot be loaded"):
        tokenizer = load("transformers:AutoTokenizer").from_pretrained(locate(reference), **NO_CODE)

    def count(template: Template, examples: tuple[Demonstration, ...], text: str) -> int:
        short = [each.truncated(template.max_text_tokens) for each in examples]
        text, _ = truncate(text, template.max_text_tokens)
        if not (tokenizer.chat_template and getattr(llm, "chat", True)):
            return len(tokenizer(template.plain(short, text)).input_ids)
        messages = template.messages(short, text)
        return len(tokenizer(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)).input_ids)

    return count


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

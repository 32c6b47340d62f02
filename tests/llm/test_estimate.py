import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from findistill.core.files import read_json
from findistill.data.demo import read_corpus
from findistill.data.labels import LabelSet
from findistill.llm import estimate as module
from findistill.llm.annotate import annotate
from findistill.llm.config import Annotate, EndpointLLM, Price, Prompt, Shots
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.estimate import Estimate, estimate
from findistill.llm.prompts import Template
from findistill.models.weights import locate
from findistill.schema import Config

LABELS = LabelSet(("negative", "neutral", "positive"))
ROWS = pd.DataFrame(row for row, _ in zip(read_corpus(), range(400), strict=False))
POOL, TEXTS = ROWS.head(100), ROWS.tail(300)


class CountingEngine(Engine):
    """Responds like a server that counts tokens with its own tokenizer and adds some for its chat template."""

    def __init__(self, several: bool) -> None:
        from transformers import AutoTokenizer

        self.several = several
        self.tokenizer = AutoTokenizer.from_pretrained(locate("embedded:smollm2"))

    def exact(self, template: Template) -> bool:
        return False

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        return template

    def responses(self, tasks: Iterable[Request], template: Template, sampling: Sampling) -> Iterator[list[Response]]:
        for task in tasks:
            messages = template.messages(task.demonstrations, task.text)
            prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            prompt_tokens = len(self.tokenizer(prompt).input_ids) + 3
            batch = []
            for sample in task.samples:
                rationale = ("Orders are " + "very " * random.Random(f"{task.id}{sample}").randrange(40) + "good",)
                answer_tokens = len(self.tokenizer(rationale[0]).input_ids) + 6 if template.steps else 2
                calls = 1 if sample == task.samples[0] or not self.several else 0
                batch.append(
                    Response(task.id, sample, raw="x", label="positive", rationale=rationale, attempts=calls,
                           tokens_in=prompt_tokens * calls, tokens_out=answer_tokens, seconds=0.5 * calls)
                )  # fmt: skip
            yield batch


def config(steps: list[str], price: float | None = 1.0) -> Config:
    return Config(
        llm=EndpointLLM(name="fake", model="fake", price=Price(price, price)),
        prompt=Prompt(name="p", instruction="Classify the sentiment of a financial text.", steps=steps),
        shots=Shots(k=6, selection="balanced"),
        annotate=Annotate(samples=4, concurrency=10),
    )


def sections(settings: Config) -> tuple:
    return settings.llm, settings.prompt, settings.shots, settings.annotate


def estimated(settings: Config, cache: Path) -> Estimate:
    return estimate(TEXTS, POOL, LABELS, *sections(settings), cache=cache)


@pytest.mark.parametrize(("steps", "several", "pilot"), [([], True, 0), (["Opinion:"], True, 20), (["Opinion:"], False, 20)])
def test_tokens_are_told_within_a_tenth(steps: list[str], several: bool, pilot: int, tmp_path: Path) -> None:
    settings, cache = config(steps), tmp_path / "cache"
    if pilot:
        annotate(
            TEXTS.head(pilot), POOL, LABELS, *sections(settings), tmp_path / "pilot", cache=cache, engine=CountingEngine(several)
        )
    before = estimated(settings, cache)
    assert (before.texts, before.cached, before.measured) == (300, pilot, pilot)
    spent = read_json(tmp_path / "pilot" / "summary.json") if pilot else dict.fromkeys(("tokens_in", "tokens_out", "requests"), 0)
    annotate(TEXTS, POOL, LABELS, *sections(settings), tmp_path / "all", cache=cache, engine=CountingEngine(several))
    summary = read_json(tmp_path / "all" / "summary.json")
    assert before.requests == summary["requests"] - spent["requests"]
    tokens_in, tokens_out = summary["tokens_in"] - spent["tokens_in"], summary["tokens_out"] - spent["tokens_out"]
    assert before.tokens_in == pytest.approx(tokens_in, rel=0.1)
    assert before.tokens_out == pytest.approx(tokens_out, rel=0.1)
    assert before.cost_usd == pytest.approx((tokens_in + tokens_out) / 1e6, rel=0.1)
    if pilot:
        assert before.seconds == pytest.approx(0.5 * before.requests / 10)
    after = estimated(settings, cache)
    assert (after.cached, after.requests, after.tokens_in, after.cost_usd) == (300, 0, 0, 0.0)


def test_it_says_what_it_does_not_know(tmp_path: Path) -> None:
    result = estimated(config(["Opinion:"], price=None), tmp_path / "none")
    assert result.cost_usd is None and result.seconds is None
    assert "price unknown" in result.text() and "annotate.limit=20" in result.text()
    assert "300 texts, 0 of them in the cache\n300 requests" in result.text()


def test_without_a_cache_a_sample_of_the_prompts_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding the nearest demonstrations of 100,000 texts takes minutes, too long for a plan."""
    settings, sizes, plan = config([]), [], module.plan_rows
    whole = estimated(settings, tmp_path / "cache")
    monkeypatch.setattr(module, "COUNTED", 50)
    monkeypatch.setattr(module, "plan_rows", lambda texts, *rest: sizes.append(len(texts)) or plan(texts, *rest))
    sampled = estimated(settings, tmp_path / "cache")
    assert sizes == [50] and (sampled.texts, sampled.requests) == (300, whole.requests) == (300, 300)
    assert sampled.tokens_in == pytest.approx(whole.tokens_in, rel=0.05) and sampled.tokens_out == whole.tokens_out

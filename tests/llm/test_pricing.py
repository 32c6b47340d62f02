"""Costs: prompt tokens that a server had cached, and the fraction of a list price that is charged."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from findistill.data.labels import LabelSet
from findistill.llm import pricing
from findistill.llm.annotate import annotate
from findistill.llm.config import Annotate, EndpointLLM, Price, Prompt, Shots
from findistill.llm.estimate import estimate
from findistill.llm.replies import Usage, usage
from tests.llm.servers import LoopbackServer, chat, is_probe, sampling

COUNTS = {"prompt_tokens": 100, "completion_tokens": 3}
LABELS = LabelSet(("negative", "neutral", "positive"))
POOL = pd.DataFrame({"id": [], "text": [], "label": []})


@pytest.mark.parametrize(
    ("counts", "further", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0}}, {}, 64),  # OpenAI, vLLM, OpenRouter
        ({"prompt_tokens_details": None}, {}, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, {}, 0),
        ({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, {}, 64),  # DeepSeek
        ({"cached_tokens": 64}, {}, 64),  # Moonshot
        ({"cache_read_input_tokens": 64, "cache_creation_input_tokens": 0}, {}, 64),  # Anthropic through a proxy
        ({}, {"timings": {"cache_n": 64, "prompt_n": 36}}, 64),  # llama.cpp
        ({"prompt_tokens_details": {"cached_tokens": 999}}, {}, 100),  # capped at the number of prompt tokens
        ({"prompt_tokens_details": {"cached_tokens": -4}}, {}, 0),
        ({"prompt_tokens_details": {"cached_tokens": "64"}}, {}, 0),
        ({"prompt_tokens_details": [64]}, {"timings": "fast"}, 0),
    ],
)
def test_cached_tokens_are_read_wherever_a_server_says_them(counts: dict, further: dict, cached: int) -> None:
    assert usage({"usage": COUNTS | counts, **further}) == Usage(100, 3, cached)


def test_cached_tokens_have_a_price_of_their_own_where_it_is_known() -> None:
    million = 1_000_000
    assert pricing.cost(Price(2.0, 8.0, 0.5), million, million, million // 2) == 1.0 + 0.25 + 8.0
    assert pricing.cost(Price(2.0, 8.0), million, million, million // 2) == 10.0
    assert pricing.cost(Price(2.0, 8.0, 0.5, factor=0.5), million, 0, million) == 0.25
    assert pricing.cost(Price(None, 8.0, 0.5), million, 0, million) is None


def test_cached_tokens_are_in_the_cost_of_a_run_and_in_the_estimate_of_the_rest(
    server: LoopbackServer, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    log.set_level(logging.INFO)
    counts = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 80}}
    server.behave = lambda body: sampling(body) if is_probe(body) else chat(["positive"] * body.get("n", 1), usage=counts)
    texts = pd.DataFrame({"id": [f"t{i}" for i in range(40)], "text": [f"text {i}" for i in range(40)], "label": None})

    def cost(price: Price, folder: str) -> float:
        llm = EndpointLLM(
            _target_="findistill.llm.endpoint.EndpointEngine", name="x", model="m", base_url=server.url, api_key_env="TEST_KEY",
            price=price,
        )  # fmt: skip
        sections = (llm, Prompt(name="direct", instruction="Classify."), Shots(k=0), Annotate(samples=2))
        annotate(texts.head(20), POOL, LABELS, *sections, tmp_path / folder, cache=tmp_path / f"{folder}-cache")
        whole = estimate(texts, POOL, LABELS, *sections, cache=tmp_path / f"{folder}-cache")
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        assert summary["cost_usd"] == pytest.approx(whole.cost_usd, rel=0.05)  # the estimate for the remaining half
        return float(summary["cost_usd"])

    assert cost(Price(10.0, 0.0, 1.0), "known") == pytest.approx(20 * (20 * 10 + 80 * 1) / 1e6)
    assert cost(Price(10.0, 0.0), "unknown") == pytest.approx(20 * 100 * 10 / 1e6)
    assert "2,000 prompt tokens (1,600 of them in the server's cache)" in log.text

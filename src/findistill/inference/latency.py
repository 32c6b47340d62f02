"""Speed of a classifier, tokenising included: milliseconds at batch 1, texts per second at batch 32.

All latencies that findistill reports are measured here: encoders in torch, ONNX files and language models.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 5  # classifiers take turns, so that what slows the machine for a while slows all of them
WARM = 3  # maximum single texts that warm up each round, uncounted, besides one batch
SINGLE = 20  # single texts per round
BATCHES = 3  # batches per round
BATCH = 32
LLM_TEXTS = 10  # for a language model, which takes a second where an encoder takes a millisecond

Classify = Callable[[Sequence[str]], object]  # texts in, outputs computed when it returns


@dataclass(frozen=True)
class Speed:
    """Median and 95th percentile milliseconds of one text, and texts per second in batches of 32 (None: not measured)."""

    p50_ms: float
    p95_ms: float
    texts_per_s: float | None

    def metrics(self) -> dict[str, float]:
        latency = {"latency/p50_ms": self.p50_ms, "latency/p95_ms": self.p95_ms}
        return latency if self.texts_per_s is None else latency | {"throughput/texts_per_s": self.texts_per_s}


def latency(classify: Classify, texts: Sequence[str]) -> dict[str, float]:
    """`latency/p50_ms`, `latency/p95_ms` and `throughput/texts_per_s` of one classifier."""
    return measure({"": classify}, texts)[""].metrics()


def llm_latency(classify: Classify, texts: Sequence[str]) -> dict[str, float]:
    """`latency/p50_ms` and `latency/p95_ms` of a language model on the first texts, one at a time; the first one warms up."""
    classify(texts[:1])
    return _speed([_seconds(classify, [text]) for text in texts[1 : LLM_TEXTS + 1] or texts], []).metrics()


def measure(classifiers: Mapping[str, Classify], texts: Sequence[str]) -> dict[str, Speed]:
    """The speed of each classifier on the same texts (repeated if they are fewer than the 100 and 480 that are timed)."""
    single: dict[str, list[float]] = {name: [] for name in classifiers}
    bulk: dict[str, list[float]] = {name: [] for name in classifiers}
    for number in range(ROUNDS):
        ones = _cycle(texts, number * SINGLE, SINGLE)
        many = _cycle(texts, number * BATCHES * BATCH, BATCHES * BATCH)
        batches = [many[start : start + BATCH] for start in range(0, len(many), BATCH)]
        for name, classify in classifiers.items():
            for text in ones[:WARM]:
                classify([text])
            single[name] += [_seconds(classify, [text]) for text in ones]
            classify(batches[0])
            bulk[name] += [_seconds(classify, batch) for batch in batches]
    return {name: _speed(single[name], bulk[name]) for name in classifiers}


def _speed(single: Sequence[float], bulk: Sequence[float]) -> Speed:
    """From the seconds of single texts and of batches."""
    p50, p95 = 1000 * np.percentile(single, [50, 95])
    return Speed(float(p50), float(p95), BATCH * len(bulk) / sum(bulk) if bulk else None)


def _cycle(texts: Sequence[str], start: int, count: int) -> list[str]:
    return [texts[index % len(texts)] for index in range(start, start + count)]


def _seconds(classify: Classify, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    classify(texts)
    return time.perf_counter() - started

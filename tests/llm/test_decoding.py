import math
import random
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare, kstest

from findistill.llm import decoding
from findistill.llm.decoding import AnswerFormat, Sample, write
from findistill.llm.votes import draw_labels

WORDS = ["", "<end>", "\n", " up", " down", " profit", ").\n\n", "S:", "yes", " no", "bear", "ish", " ", "\r\n"]
END, BREAK, UP, DOWN, PROFIT, CLOSE, HEADER, YES, NO, BEAR, ISH, SPACE, RETURN = range(1, len(WORDS))


def decode(ids: list[int]) -> str:
    return "".join(WORDS[each] for each in ids)


def encode(text: str) -> list[int]:
    ids = []
    while text:
        ids.append(max((i for i, word in enumerate(WORDS) if word and text.startswith(word)), key=lambda i: len(WORDS[i])))
        text = text[len(WORDS[ids[-1]]) :]
    return ids


class Scripted:
    """Rows whose likeliest tokens are written down; they keep what they are fed, and score the words alike."""

    def __init__(self, scripts: list[list[int]]) -> None:
        self.scripts, self.inputs = scripts, [[] for _ in scripts]
        self.final_inputs: list[list[int]] = []
        self.passes = 0
        self.logits = self.next()

    def next(self) -> torch.Tensor:
        logits = torch.zeros(len(self.scripts), len(WORDS))
        for row, script in zip(logits, self.scripts, strict=True):
            row[script[self.passes] if self.passes < len(script) else YES] = 5.0
        return logits

    def select(self, index: list[int]) -> None:
        self.final_inputs += [row for i, row in enumerate(self.inputs) if i not in index]
        self.scripts = [self.scripts[i] for i in index]
        self.inputs = [list(self.inputs[i]) for i in index]

    def feed(self, tokens: list[int]) -> torch.Tensor:
        self.passes += 1
        for row, token in zip(self.inputs, tokens, strict=True):
            row.append(token)
        self.logits = self.next()
        return self.logits


def form(words: list[list[int]], longest: int = 6) -> AnswerFormat:
    return AnswerFormat(("S:",), words, longest, frozenset({END}), encode, decode)


@pytest.mark.parametrize(
    ("script", "line", "inputs"),
    [
        ([UP, PROFIT, BREAK], "up profit", [UP, PROFIT, BREAK, HEADER]),
        ([UP, END], "up", [UP, BREAK, HEADER]),
        ([END], "", [BREAK, HEADER]),
        ([BREAK, SPACE, UP, BREAK], "up", [BREAK, SPACE, UP, BREAK, HEADER]),
        ([UP, DOWN] * 5, "up down up down up down", [UP, DOWN] * 3 + [BREAK, HEADER]),
        ([UP, RETURN], "up", [UP, BREAK, HEADER]),
    ],
)
def test_a_line_ends_by_its_break_the_models_end_or_its_length(script: list[int], line: str, inputs: list[int]) -> None:
    rows, sample = Scripted([script]), Sample("a")
    write(rows, [sample], form([[YES], [NO]]), 0)
    assert sample.lines == [line]
    assert rows.inputs == [inputs]
    assert sample.tokens == len(inputs) + 1


def test_what_stands_before_a_break_in_its_token_is_kept() -> None:
    WORDS.append(").")
    try:
        rows, sample = Scripted([[UP, CLOSE]]), Sample("a")
        write(rows, [sample], form([[YES], [NO]]), 0)
    finally:
        WORDS.pop()
    assert sample.lines == ["up)."]
    assert rows.inputs == [[UP, len(WORDS), BREAK, HEADER]]


def test_rows_that_are_done_are_computed_no_further() -> None:
    rows, samples = Scripted([[UP, BREAK], [UP, DOWN, UP, DOWN, BREAK]]), [Sample("a"), Sample("b")]
    write(rows, samples, form([[YES], [NO]]), 0)
    assert [sample.lines for sample in samples] == [["up"], ["up down up down"]]
    assert rows.final_inputs == [[UP, BREAK, HEADER]]
    assert rows.passes == 6


def test_words_of_several_tokens_are_spelt_out() -> None:
    rows, sample = Scripted([[UP, BREAK, SPACE, YES, ISH, NO]]), Sample("a")
    write(rows, [sample], form([[YES], [BEAR, ISH], [NO, NO, NO]]), 0)
    low = -math.log(len(WORDS) - 1 + math.exp(5))
    assert sample.scores == pytest.approx([low + 5, low + low + 5, low + low + low + 5], abs=1e-4)
    assert rows.passes == 5


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -200.0]).repeat(20_000, 1)
    samples = [Sample(str(number)) for number in range(len(logits))]
    drawn = Counter(decoding._choose(logits, samples, list(range(len(logits))), 0.5))
    expected = (logits[0, :4].double() / 0.5).softmax(-1) * len(logits)
    assert set(drawn) <= {0, 1, 2, 3}
    assert chisquare([drawn[i] for i in range(4)], expected.tolist()).pvalue > 0.001


def test_noise_is_exponential_and_depends_on_key_and_token() -> None:
    keys = [random.Random(number).getrandbits(63) for number in range(300)]
    noise = decoding._exponential(torch.tensor(keys)[:, None], torch.arange(500)[None])
    assert kstest(noise.flatten(), "expon").pvalue > 0.001
    assert torch.corrcoef(noise)[~torch.eye(300, dtype=torch.bool)].abs().max() < 0.25
    assert torch.corrcoef(noise.T)[~torch.eye(500, dtype=torch.bool)].abs().max() < 0.35
    assert len(noise.unique()) > 0.99 * noise.numel()


def test_labels_are_drawn_at_the_temperature() -> None:
    row = {"negative": math.log(0.1), "neutral": math.log(0.2), "positive": math.log(0.7)}
    labels = [draw_labels(row, 0.5, str(seed))[0] for seed in range(4000)]
    assert labels.count("positive") / 4000 == pytest.approx(0.49 / 0.54, abs=0.02)
    assert draw_labels(row, 0, "any") == ["positive"]

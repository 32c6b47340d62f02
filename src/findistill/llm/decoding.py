"""Batched decoding of many samples of many texts; what they share is computed and stored once.

A batch has one row per sample. Every forward pass adds one token to each row, and a finished row leaves the batch, so no
pass does wasted work. The headers of a response are fed, not sampled, and a response ends with the log-probabilities of
the label words.

What rows share (the demonstrations at the start of every prompt, and a text's prompt across its samples) is read in place
(`shared_attention`): a row holds only the keys and values of the tokens that it wrote itself. Models whose attention is not
plain (sliding windows, capped scores, an encoder) get a copy per row instead.
"""

import copy
import functools
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache

from findistill.llm.shared_attention import RowLayout, SharedKVCache
from findistill.llm.text import one_line

# -- rows --------------------------------------------------------------------------------------------------------------


class Rows:
    """Rows that continue their text's prompt, for a causal model that reads shared keys in place."""

    def __init__(self, model: Any, prefix: Any, ids: torch.Tensor, mask: torch.Tensor, texts: torch.Tensor) -> None:
        """Prefill the prompts.

        Args:
            model: the model.
            prefix: the key-value cache of the prefix that all prompts share, or None.
            ids: (texts, length) the rest of the prompts, padded on the left.
            mask: (texts, length) 1 where `ids` are tokens, 0 where they are padding.
            texts: (rows,) which text each row continues.
        """
        self.model, self.texts = model, texts
        self.start(prefix, ids, mask)

    def start(self, prefix: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.shared = [] if prefix is None else [SharedKVCache(prefix)]
        cached = 0 if prefix is None else prefix.get_seq_length()
        none = self.texts.new_zeros(len(ids))
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=cached + (mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1,
            shared=[RowLayout(each, none) for each in self.shared] or None,
        )  # fmt: skip
        self.shared.append(SharedKVCache(out.past_key_values, mask))
        self.cache = DynamicCache()
        self.positions = (cached + mask.sum(1))[self.texts]
        self._seat()
        self.logits = out.logits[:, -1][self.texts]

    def select(self, index: list[int]) -> None:
        """Keep only these rows, in this order; a row may be repeated."""
        rows = torch.tensor(index, device=self.texts.device)
        self.texts, self.positions = self.texts[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)
        self._seat()

    def _seat(self) -> None:
        *prefix, texts = self.shared
        self.seats = [RowLayout(each, torch.zeros_like(self.texts)) for each in prefix] + [RowLayout(texts, self.texts)]

    def feed(self, tokens: list[int]) -> torch.Tensor:
        """Append one token to each row; returns the next logits, (rows, vocabulary)."""
        self.logits = self.forward(self.texts.new_tensor(tokens)[:, None]).logits[:, -1]
        self.positions = self.positions + 1
        return self.logits

    def forward(self, ids: torch.Tensor) -> Any:
        return self.model(
            input_ids=ids, position_ids=self.positions[:, None], past_key_values=self.cache, use_cache=True, shared=self.seats
        )


class CopiedRows(Rows):
    """Rows of a causal model whose attention is not plain: each has its own copy of all keys and values."""

    def start(self, prefix: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        cache = copy.deepcopy(prefix)
        if cache is not None:
            cache.batch_repeat_interleave(len(ids))
            mask = torch.cat([mask.new_ones(len(ids), cache.get_seq_length()), mask], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        self.cache = out.past_key_values
        self.cache.batch_select_indices(self.texts)
        self.mask = mask[self.texts]
        self.positions = self.mask.sum(1)
        self.logits = out.logits[:, -1][self.texts]

    def select(self, index: list[int]) -> None:
        rows = torch.tensor(index, device=self.texts.device)
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)

    def forward(self, ids: torch.Tensor) -> Any:
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        return self.model(
            input_ids=ids, attention_mask=self.mask, position_ids=self.positions[:, None],
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip


class DecoderRows(CopiedRows):
    """Rows of an encoder-decoder model: prompts are encoded once per text, and rows are the decoder's."""

    def start(self, prefix: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.mask = mask
        self.positions = mask.sum(1)
        self.feed([self.model.config.decoder_start_token_id] * len(ids))
        self.select(self.texts.tolist())
        self.logits = self.logits[self.texts]

    def forward(self, ids: torch.Tensor) -> Any:
        # After the first pass the decoder reads the cached keys of the encoder's output, so any output of this shape will do.
        encoded = self.encoded if len(self.encoded) == len(ids) else self.encoded[:1].expand(len(ids), -1, -1)
        return self.model(
            encoder_outputs=(encoded,), attention_mask=self.mask, decoder_input_ids=ids,
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass
class AnswerFormat:
    """The format of a response: one line per step, then a label.

    Args:
        headers: for each step, the text that follows its line: the header of the next step, or of the label.
        words: the token ids of each label word.
        longest: maximum number of tokens in a line.
        ends: the tokens with which the model ends its response.
        encode: text -> token ids.
        decode: token ids -> text.
        closing: text that completes a line, as a line break does; empty: none.
    """

    headers: tuple[str, ...]
    words: Sequence[list[int]]
    longest: int
    ends: frozenset[int]
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    closing: str = ""

    def __post_init__(self) -> None:
        self.piece = functools.cache(lambda token: self.decode([token]))  # the text of one token

    @property
    def most(self) -> int:
        """Maximum number of tokens that a row feeds to the model."""
        headers = sum(len(self.encode(f"\n{header}")) for header in self.headers)
        return len(self.headers) * (self.longest + 1) + headers + max(len(word) for word in self.words)


@dataclass
class Sample:
    """A response being written. It has its own random numbers, so the rest of the batch does not affect it."""

    seed: str
    lines: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # log-probability of each label word, summed over its tokens
    tokens: int = 0
    line_ids: list[int] = field(default_factory=list)  # of the current line
    due: deque[int] = field(default_factory=deque)  # to be fed before sampling continues

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


@dataclass
class LabelScoring:
    """A row that scores a label word of several tokens after a sample's lines."""

    sample: Sample
    word: int
    at: int = 1  # index of the word's next token


def write(rows: Rows, samples: Sequence[Sample], form: AnswerFormat, temperature: float) -> None:
    """Complete every sample, filling in its `lines`, `scores` and `tokens`."""
    at: list[Sample | LabelScoring] = list(samples)
    logits = rows.logits
    while True:
        writing = [i for i, row in enumerate(at) if isinstance(row, Sample) and not row.due and _unfinished(row, form)]
        scoring = [i for i, row in enumerate(at) if isinstance(row, LabelScoring) or not (row.due or _unfinished(row, form))]
        tokens = dict(zip(writing, _choose(logits, [at[i] for i in writing], writing, temperature), strict=True))
        scores = dict(zip(scoring, logits[scoring].float().log_softmax(-1), strict=True)) if scoring else {}
        following: list[tuple[int, Sample | LabelScoring, int]] = []  # the row that it continues, its state, its next token
        for i, row in enumerate(at):
            if isinstance(row, LabelScoring):
                word = form.words[row.word]
                row.sample.scores[row.word] += scores[i][word[row.at]].item()
                row.at += 1
                if row.at < len(word):
                    following.append((i, row, word[row.at - 1]))
            elif i in scores:
                row.scores = scores[i][[word[0] for word in form.words]].tolist()
                row.tokens += 1
                following += [(i, LabelScoring(row, number), word[0]) for number, word in enumerate(form.words) if len(word) > 1]
            else:
                if i in tokens:
                    _take(row, tokens[i], form)
                row.tokens += 1
                following.append((i, row, row.due.popleft()))
        if not following:
            return
        index = [i for i, _, _ in following]
        if index != list(range(len(at))):
            rows.select(index)
        at = [row for _, row, _ in following]
        logits = rows.feed([token for _, _, token in following])


def _unfinished(sample: Sample, form: AnswerFormat) -> bool:
    return len(sample.lines) < len(form.headers)


def _take(sample: Sample, token: int, form: AnswerFormat) -> None:
    """Add a sampled token to the current line and, if that completes the line, queue the next header."""
    ended, rest = token in form.ends, ""
    if not ended and "\n" in form.piece(token):
        line, broken, _ = form.decode([*sample.line_ids, token]).lstrip().partition("\n")
        if broken:  # the token that breaks the line may begin with the line's last characters
            ended, rest = True, line.rstrip()[len(form.decode(sample.line_ids).lstrip()) :]
    if not ended:
        sample.line_ids.append(token)
        sample.due.append(token)
        closed = form.closing and form.closing in form.piece(token)
        if len(sample.line_ids) < form.longest and not closed:
            return
    sample.lines.append(one_line(form.decode(sample.line_ids) + rest))
    sample.due.extend(form.encode(f"{rest}\n{form.headers[len(sample.lines) - 1]}"))
    sample.line_ids = []


def _choose(logits: torch.Tensor, samples: Sequence[Any], rows: list[int], temperature: float) -> list[int]:
    """The next token of each sample, from its logits in `rows`: the argmax at temperature 0, else a draw.

    A draw is the argmax of the logits plus Gumbel noise (the Gumbel-max trick). A rounding error in one logit then rarely
    changes the draw, so batches of other shapes give the same responses; with inverse-CDF sampling it would shift the
    whole tail.
    """
    if not rows:
        return []
    if len(rows) < len(logits):
        logits = logits[rows]
    if temperature == 0:
        return logits.argmax(-1).tolist()
    scores = logits.float() / temperature
    near = scores > scores.amax(-1, keepdim=True) - 30  # the excluded tokens have less than 1e-8 of the probability in total
    row, token = near.nonzero(as_tuple=True)
    keys = token.new_tensor([sample.random.getrandbits(63) for sample in samples])
    noisy = scores[row, token] - _exponential(keys[row], token).log()
    return torch.full_like(scores, -math.inf).index_put((row, token), noisy).argmax(-1).tolist()


def _exponential(keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Exponentially distributed numbers, hashed from key and token, so that only candidate tokens need any."""
    mixed = keys ^ (tokens + 1) * -7046029254386353131  # the constants of SplitMix64, as signed integers
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    mixed = (mixed ^ (mixed >> 27)) * -7723592293110705685
    mixed = mixed ^ (mixed >> 31)
    # Uniform on (0, 1), with the finest resolution near 0, where the winning tokens are.
    uniform = ((mixed & (2**53 - 1)).float() + 0.5) / 2**53
    return -(-uniform).log1p()

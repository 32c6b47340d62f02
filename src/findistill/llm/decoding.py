"""Many samples of many texts, decoded side by side: what they have in common is computed and stored once.

A batch is a set of rows, one a sample. All rows write one token a pass, and a row that is done leaves the batch, so no
pass computes what nobody reads. The headers of a response are fed, not sampled, and a response ends with the
log-probabilities of the label words.

What rows share (the worked examples at the start of every prompt, and the prompt of a text among its samples) is read
in place (`shared_attention`): each row's own keys and values are only those of what it wrote itself. Models whose attention
is not the plain one (sliding windows, capped scores, an encoder) get a copy for each row instead.
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
    """Rows that continue their text's prompt, of a causal model that reads shared keys in place."""

    def __init__(self, model: Any, prefix: Any, ids: torch.Tensor, mask: torch.Tensor, texts: torch.Tensor) -> None:
        """Read the prompts.

        Args:
            model: the model.
            prefix: the key-value cache of what all prompts start with, or None.
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
        """Go on with these rows only, in this order; a row may come several times."""
        rows = torch.tensor(index, device=self.texts.device)
        self.texts, self.positions = self.texts[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)
        self._seat()

    def _seat(self) -> None:
        *prefix, texts = self.shared
        self.seats = [RowLayout(each, torch.zeros_like(self.texts)) for each in prefix] + [RowLayout(texts, self.texts)]

    def feed(self, tokens: list[int]) -> torch.Tensor:
        """Give each row its next token; returns the (rows, vocabulary) logits after it."""
        self.logits = self.forward(self.texts.new_tensor(tokens)[:, None]).logits[:, -1]
        self.positions = self.positions + 1
        return self.logits

    def forward(self, ids: torch.Tensor) -> Any:
        return self.model(
            input_ids=ids, position_ids=self.positions[:, None], past_key_values=self.cache, use_cache=True, shared=self.seats
        )


class CopiedRows(Rows):
    """Rows of a causal model with attention of its own kind: each has its own copy of everything before it."""

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
    """Rows of a model with an encoder: prompts are encoded once a text, rows are what the decoder writes."""

    def start(self, prefix: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.mask = mask
        self.positions = mask.sum(1)
        self.feed([self.model.config.decoder_start_token_id] * len(ids))
        self.select(self.texts.tolist())
        self.logits = self.logits[self.texts]

    def forward(self, ids: torch.Tensor) -> Any:
        # After the first pass the decoder reads the cached keys of the encoder's output, so any output does.
        encoded = self.encoded if len(self.encoded) == len(ids) else self.encoded[:1].expand(len(ids), -1, -1)
        return self.model(
            encoder_outputs=(encoded,), attention_mask=self.mask, decoder_input_ids=ids,
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass
class AnswerFormat:
    """What rows write: a line a step, then a label.

    Args:
        headers: of each step, the text that follows its line: the header of the next step, or of the label.
        words: the label words' token ids.
        longest: tokens of a line at most.
        ends: the tokens by which the model ends its response.
        encode: a text's token ids.
        decode: the text of token ids.
        closing: a line that has this is complete; empty: its end is a line break.
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
        """Tokens that a row feeds to the model at most."""
        headers = sum(len(self.encode(f"\n{header}")) for header in self.headers)
        return len(self.headers) * (self.longest + 1) + headers + max(len(word) for word in self.words)


@dataclass
class Sample:
    """One response while it is written. Its random numbers are its own, so neighbours in the batch do not change it."""

    seed: str
    lines: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # log-probability of each label word, summed over its tokens
    tokens: int = 0
    line_ids: list[int] = field(default_factory=list)  # of the line at hand
    due: deque[int] = field(default_factory=deque)  # fed before anything is sampled

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


@dataclass
class LabelScoring:
    """A row that spells out a label word of several tokens after a sample's response."""

    sample: Sample
    word: int
    at: int = 1  # the word's token that comes next


def write(rows: Rows, samples: Sequence[Sample], form: AnswerFormat, temperature: float) -> None:
    """Write every sample to its end: its `lines`, `scores` and `tokens` are filled in."""
    at: list[Sample | LabelScoring] = list(samples)
    logits = rows.logits
    while True:
        writing = [i for i, row in enumerate(at) if isinstance(row, Sample) and not row.due and _unfinished(row, form)]
        scoring = [i for i, row in enumerate(at) if isinstance(row, LabelScoring) or not (row.due or _unfinished(row, form))]
        tokens = dict(zip(writing, _choose(logits, [at[i] for i in writing], writing, temperature), strict=True))
        scores = dict(zip(scoring, logits[scoring].float().log_softmax(-1), strict=True)) if scoring else {}
        following: list[tuple[int, Sample | LabelScoring, int]] = []  # the row it continues, what it is, its next token
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
    """Put a sampled token where it belongs, and the next header after it when the line is complete."""
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
    """The next token of each sample, whose logits stand in `rows`: the likeliest at temperature 0, else drawn.

    A draw is the best of the logits after noise is added (the Gumbel-max trick). A logit that is off by a rounding error
    then seldom changes what is drawn, so batches of other shapes give the same responses; looking up one random number in
    the cumulative distribution would move all of its tail.
    """
    if not rows:
        return []
    if len(rows) < len(logits):
        logits = logits[rows]
    if temperature == 0:
        return logits.argmax(-1).tolist()
    scores = logits.float() / temperature
    near = scores > scores.amax(-1, keepdim=True) - 30  # words left out have less than 1e-8 of the probability together
    row, token = near.nonzero(as_tuple=True)
    keys = token.new_tensor([sample.random.getrandbits(63) for sample in samples])
    noisy = scores[row, token] - _exponential(keys[row], token).log()
    return torch.full_like(scores, -math.inf).index_put((row, token), noisy).argmax(-1).tolist()


def _exponential(keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Exponentially distributed numbers, each a hash of a key and a token: only the words in question need any."""
    mixed = keys ^ (tokens + 1) * -7046029254386353131  # the constants of SplitMix64, as signed numbers
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    mixed = (mixed ^ (mixed >> 27)) * -7723592293110705685
    mixed = mixed ^ (mixed >> 31)
    # Uniform on (0, 1), finest near 0, where the words that win have theirs.
    uniform = ((mixed & (2**53 - 1)).float() + 0.5) / 2**53
    return -(-uniform).log1p()

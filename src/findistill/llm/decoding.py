"""Many samples of many texts, written side by side: what they have in common is computed and kept once.

A batch is a set of rows, one a sample. All rows write one token a pass, and a row that is done leaves the batch, so no
pass computes what nobody reads. The headers of an answer are fed, not sampled, and an answer ends with the
log-probabilities of the label words.

What rows share (the worked examples at the start of every prompt, and the prompt of a text among its samples) is read
in place: each row's own keys and values are only those of what it wrote itself. The attention to the parts is computed
apart and joined by their normalisers, which is exact (Juravsky et al. 2024, "Hydragen"). Models whose attention is not
the plain one (sliding windows, capped scores, an encoder) get a copy for each row instead.
"""

import copy
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from findistill.llm.prompts import one_line

if TYPE_CHECKING:
    import torch

ATTENTION = "findistill"


# -- attention to shared keys ----------------------------------------------------------------------------------------


class Shared:
    """Keys and values that several rows read: of each layer, (groups, heads, length, width). Every row reads one group's."""

    def __init__(self, cache: Any, mask: "torch.Tensor | None" = None) -> None:
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]
        self.mask = None if mask is None or mask.all() else mask.bool()[:, None, None]

    @property
    def length(self) -> int:
        return int(self.layers[0][0].shape[2])

    def seat(self, groups: "torch.Tensor") -> "Seats":
        return Seats(self, groups)


class Seats:
    """Which group of a `Shared` each row reads: rows are laid out as (groups, most rows of a group) to be read together."""

    def __init__(self, shared: Shared, groups: "torch.Tensor") -> None:
        import torch

        self.shared = shared
        taken = [0] * len(shared.layers[0][0])
        seats = []
        for group in groups.tolist():
            seats.append(taken[group])
            taken[group] += 1
        self.shape = (len(taken), max(taken))
        self.at = (groups, torch.tensor(seats, device=groups.device))

    def attend(self, layer: int, query: "torch.Tensor", scaling: float) -> "tuple[torch.Tensor, torch.Tensor]":
        """`_attend` for queries (rows, heads, queries, width)."""
        key, value = self.shared.layers[layer]
        (groups, seats), (_, heads, queries, width) = self.shape, query.shape
        laid = query.new_zeros(groups, seats, heads, queries, width)
        laid[self.at] = query
        laid = laid.transpose(1, 2).reshape(groups, heads, seats * queries, width)
        found = _attend(laid, key, value, self.shared.mask, scaling)
        back = (each.view(groups, heads, seats, queries, -1).transpose(1, 2)[self.at] for each in found)
        return next(back), next(back)


def _attend(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", mask: "torch.Tensor | None", scaling: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Attention over one part of the keys, (..., queries, width), and its log-normaliser, (..., queries, 1)."""
    import torch

    scores = (query @ key.mT).float() * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)  # finite: padding sees nothing, and no NaN
    whole = scores.logsumexp(-1, keepdim=True)
    return (scores - whole).exp().to(value.dtype) @ value, whole


def attention(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    *,
    scaling: float | None = None,
    shared: Sequence[Seats] | None = None,
    **kwargs: Any,
) -> "tuple[torch.Tensor, None]":
    """An attention function of transformers: the usual one, and with `shared` also over those keys, in place.

    Raises:
        NotImplementedError: the model asks for more than plain attention.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if shared is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if any(kwargs.get(name) is not None for name in ("sliding_window", "softcap", "s_aux", "position_bias")):
        raise NotImplementedError("sliding windows, capped scores, sinks, position biases")
    rows, heads, length, width = query.shape
    of_key, seen = heads // key.shape[1], key.shape[2]
    scaling = width**-0.5 if scaling is None else scaling
    if attention_mask is None and length > 1:  # left out by transformers where the kernel's own causal mask would do
        attention_mask = torch.ones(1, 1, length, seen, dtype=torch.bool, device=query.device).tril(seen - length)
    mask = None if attention_mask is None else attention_mask.repeat(1, 1, of_key, 1)
    query = query.reshape(rows, key.shape[1], of_key * length, width)  # the queries of one key's heads, one after the other
    parts = [_attend(query, key, value, mask, scaling)]
    parts += [each.attend(module.layer_idx, query, scaling) for each in shared]
    shares = torch.cat([whole for _, whole in parts], -1).softmax(-1).split(1, -1)
    out = sum(share * part.float() for share, (part, _) in zip(shares, parts, strict=True))
    return out.to(value.dtype).view(rows, heads, length, -1).transpose(1, 2).contiguous(), None


def share(model: Any) -> bool:
    """Let a causal model read shared keys in place; False where its attention is not plain, and nothing is changed."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
    from transformers.masking_utils import sdpa_mask

    before = model.config._attn_implementation
    if before == ATTENTION:
        return True
    if before != "sdpa":
        return False
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    read: list[int] = []

    class Probe(Seats):
        def attend(self, layer: int, *args: Any) -> "tuple[torch.Tensor, torch.Tensor]":
            read.append(layer)
            return super().attend(layer, *args)

    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    try:
        with torch.inference_mode():
            cache = model(input_ids=ids, use_cache=True).past_key_values
            seats = [Probe(Shared(cache), ids[0])]
            model(input_ids=ids, position_ids=ids + 1, past_key_values=DynamicCache(), use_cache=True, shared=seats)
    except (NotImplementedError, TypeError, AttributeError):  # a forward without keywords, a cache of another kind
        read.clear()
    if read == list(range(model.config.num_hidden_layers)):
        return True
    model.set_attn_implementation(before)
    return False


# -- rows --------------------------------------------------------------------------------------------------------------


class Rows:
    """Rows that continue their text's prompt, of a causal model that reads shared keys in place."""

    def __init__(self, model: Any, prefix: Any, ids: "torch.Tensor", mask: "torch.Tensor", texts: "torch.Tensor") -> None:
        """Read the prompts.

        Args:
            model: the model.
            prefix: the key-value cache of what all prompts start with, or None.
            ids: (texts, length) the rest of the prompts, padded on the left.
            mask: (texts, length) 1 where `ids` are tokens, 0 where they are padding.
            texts: (rows,) which text each row continues.
        """
        self.model = model
        self.texts = texts
        self.start(prefix, ids, mask)

    def start(self, prefix: Any, ids: "torch.Tensor", mask: "torch.Tensor") -> None:
        from transformers import DynamicCache

        self.shared = [] if prefix is None else [Shared(prefix)]
        cached = sum(each.length for each in self.shared)
        none = self.texts.new_zeros(len(ids))
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=cached + (mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1,
            shared=[each.seat(none) for each in self.shared] or None,
        )  # fmt: skip
        self.shared.append(Shared(out.past_key_values, mask))
        self.cache = DynamicCache()
        self.positions = (cached + mask.sum(1))[self.texts]
        self._seat()
        self.logits = out.logits[:, -1][self.texts]

    def select(self, index: list[int]) -> None:
        """Go on with these rows only, in this order; a row may come several times."""
        import torch

        kept = torch.tensor(index, device=self.texts.device)
        self.texts, self.positions = self.texts[kept], self.positions[kept]
        self.cache.batch_select_indices(kept)
        self._seat()

    def _seat(self) -> None:
        *prefix, texts = self.shared
        self.seats = [*(each.seat(self.texts.new_zeros(len(self.texts))) for each in prefix), texts.seat(self.texts)]

    def feed(self, tokens: list[int]) -> "torch.Tensor":
        """Give each row its next token; returns the (rows, vocabulary) logits after it."""
        ids = self.texts.new_tensor(tokens)[:, None]
        out = self.model(
            input_ids=ids, position_ids=self.positions[:, None], past_key_values=self.cache, use_cache=True, shared=self.seats
        )
        self.positions = self.positions + 1
        self.logits = out.logits[:, -1]
        return self.logits


class CopiedRows(Rows):
    """Rows of a causal model with attention of its own kind: each has its own copy of everything before it."""

    def start(self, prefix: Any, ids: "torch.Tensor", mask: "torch.Tensor") -> None:
        import torch

        cache, cached = None, 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        if prefix is not None:
            cached = prefix.get_seq_length()
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(len(ids))
            mask = torch.cat([mask.new_ones(len(ids), cached), mask], dim=1)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=cached + positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.cache = out.past_key_values
        self.cache.batch_select_indices(self.texts)
        self.mask = mask[self.texts]
        self.positions = self.mask.sum(1)
        self.logits = out.logits[:, -1][self.texts]

    def select(self, index: list[int]) -> None:
        import torch

        kept = torch.tensor(index, device=self.texts.device)
        self.mask, self.positions = self.mask[kept], self.positions[kept]
        self.cache.batch_select_indices(kept)

    def feed(self, tokens: list[int]) -> "torch.Tensor":
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        out = self.model(
            input_ids=self.texts.new_tensor(tokens)[:, None], attention_mask=self.mask, position_ids=self.positions[:, None],
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        self.positions = self.positions + 1
        self.logits = out.logits[:, -1]
        return self.logits


class DecoderRows(CopiedRows):
    """Rows of a model with an encoder: prompts are encoded once a text, rows are what the decoder writes."""

    def start(self, prefix: Any, ids: "torch.Tensor", mask: "torch.Tensor") -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.mask = mask
        self.positions = mask.sum(1)
        self.feed([self.model.config.decoder_start_token_id] * len(ids))
        self.select(self.texts.tolist())
        self.logits = self.logits[self.texts]

    def feed(self, tokens: list[int]) -> "torch.Tensor":
        # After the first pass the decoder reads the cached keys of the encoder's output, so any output does.
        encoded = self.encoded if len(self.encoded) == len(tokens) else self.encoded[:1].expand(len(tokens), -1, -1)
        out = self.model(
            encoder_outputs=(encoded,), attention_mask=self.mask, decoder_input_ids=self.mask.new_tensor(tokens)[:, None],
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        self.logits = out.logits[:, -1]
        return self.logits


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass
class Form:
    """What rows write: a line a step, then a label.

    Args:
        headers: of each step, the text that follows its line: the header of the next step, or of the label.
        words: the label words' token ids.
        longest: tokens of a line at most.
        ends: the tokens by which the model ends its answer.
        encode: a text's token ids.
        decode: the text of token ids.
    """

    headers: tuple[str, ...]
    words: Sequence[list[int]]
    longest: int
    ends: frozenset[int]
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    def __post_init__(self) -> None:
        self._pieces: dict[int, str] = {}

    def piece(self, token: int) -> str:
        """The text of one token."""
        if token not in self._pieces:
            self._pieces[token] = self.decode([token])
        return self._pieces[token]

    @property
    def most(self) -> int:
        """Tokens that a row feeds to the model at most."""
        headers = sum(len(self.encode(f"\n{header}")) for header in self.headers)
        return len(self.headers) * (self.longest + 1) + headers + max(len(word) for word in self.words)


@dataclass
class Sample:
    """One answer while it is written. Its random numbers are its own, so neighbours in the batch do not change it."""

    seed: str
    lines: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # log-probability of each label word, summed over its tokens
    tokens: int = 0
    written: list[int] = field(default_factory=list)  # of the line at hand
    due: deque[int] = field(default_factory=deque)  # fed before anything is sampled

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


@dataclass
class Spelling:
    """A row that spells out a label word of several tokens after a sample's answer."""

    sample: Sample
    word: int
    at: int = 1  # the word's token that comes next


def write(rows: Rows, samples: Sequence[Sample], form: Form, temperature: float) -> None:
    """Write every sample to its end: its `lines`, `scores` and `tokens` are filled in."""
    at: list[Sample | Spelling] = list(samples)
    logits = rows.logits
    while True:
        writing = [i for i, row in enumerate(at) if isinstance(row, Sample) and not row.due and _unfinished(row, form)]
        judged = [i for i, row in enumerate(at) if isinstance(row, Spelling) or not (row.due or _unfinished(row, form))]
        tokens = dict(zip(writing, _choose(logits, [at[i] for i in writing], writing, temperature), strict=True))
        scores = dict(zip(judged, logits[judged].float().log_softmax(-1), strict=True)) if judged else {}
        going: list[tuple[int, Sample | Spelling, int]] = []  # the row it continues, what it is, its next token
        for i, row in enumerate(at):
            if isinstance(row, Spelling):
                word = form.words[row.word]
                row.sample.scores[row.word] += scores[i][word[row.at]].item()
                row.at += 1
                if row.at < len(word):
                    going.append((i, row, word[row.at - 1]))
            elif i in scores:
                row.scores = scores[i][[word[0] for word in form.words]].tolist()
                row.tokens += 1
                going += [(i, Spelling(row, number), word[0]) for number, word in enumerate(form.words) if len(word) > 1]
            else:
                if i in tokens:
                    _take(row, tokens[i], form)
                row.tokens += 1
                going.append((i, row, row.due.popleft()))
        if not going:
            return
        index = [i for i, _, _ in going]
        if index != list(range(len(at))):
            rows.select(index)
        at = [row for _, row, _ in going]
        logits = rows.feed([token for _, _, token in going])


def _unfinished(sample: Sample, form: Form) -> bool:
    return len(sample.lines) < len(form.headers)


def _take(sample: Sample, token: int, form: Form) -> None:
    """Put a sampled token where it belongs, and the next header after it when the line is complete."""
    ended, rest = token in form.ends, ""
    if not ended and "\n" in form.piece(token):
        line, broken, _ = form.decode([*sample.written, token]).lstrip().partition("\n")
        if broken:  # the token that breaks the line may begin with the line's last characters
            ended, rest = True, line.rstrip()[len(form.decode(sample.written).lstrip()) :]
    if not ended:
        sample.written.append(token)
        sample.due.append(token)
        if len(sample.written) < form.longest:
            return
    sample.lines.append(one_line(form.decode(sample.written) + rest))
    sample.due.extend(form.encode(f"{rest}\n{form.headers[len(sample.lines) - 1]}"))
    sample.written = []


def _choose(logits: "torch.Tensor", samples: Sequence[Any], rows: list[int], temperature: float) -> list[int]:
    """The next token of each sample, whose logits stand in `rows`: the likeliest at temperature 0, else drawn.

    A draw is the best of the logits after noise is added (the Gumbel-max trick). A logit that is off by a rounding error
    then seldom changes what is drawn, so batches of other shapes give the same answers; looking up one random number in
    the cumulative distribution would move all of its tail.
    """
    import torch

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
    drawn = scores[row, token] - _exponential(keys[row], token).log()
    return torch.full_like(scores, -math.inf).index_put((row, token), drawn).argmax(-1).tolist()


def _exponential(keys: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
    """Exponentially distributed numbers, each a hash of a key and a token: only the words in question need any."""
    mixed = keys ^ (tokens + 1) * -7046029254386353131  # the constants of SplitMix64, as signed numbers
    mixed = (mixed ^ (mixed >> 30)) * -4658895280553007687
    mixed = (mixed ^ (mixed >> 27)) * -7723592293110705685
    mixed = mixed ^ (mixed >> 31)
    # Uniform on (0, 1), finest near 0, where the words that win have theirs.
    uniform = ((mixed & (2**53 - 1)).float() + 0.5) / 2**53
    return -(-uniform).log1p()


def draw(row: dict[str, float], temperature: float, seed: str) -> str:
    """A label drawn from its log-probabilities; the likeliest at temperature 0."""
    if temperature == 0:
        return max(row, key=row.__getitem__)
    top = max(row.values())
    weights = [math.exp((value - top) / temperature) for value in row.values()]
    return random.Random(f"{seed}\0label").choices(list(row), weights)[0]

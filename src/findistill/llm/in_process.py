"""Annotate with a language model in this process, causal or with an encoder (T5).

Without steps the label's exact distribution is read from one forward pass a text; with them, the lines of each answer
are sampled first and its label is then drawn from its distribution after them.
"""

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.llm import decoding
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Template
from findistill.llm.sizes import HELD
from findistill.llm.votes import needed
from findistill.runs.language_model import load
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

STEP_TOKENS = 48  # of what is written in each step: a short opinion
LINE_TOKENS = 16  # of a line's header, or of the label and what a model says around it
WORTH_CACHING = 64  # tokens that all prompts start with


class InProcessEngine:
    """An annotator made of a Hugging Face model; the fields are those of `settings.schema.InProcessLLM`."""

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        price: Any = None,
        dtype: str = "auto",
        batch_tokens: int = 4096,
        max_prompt_tokens: int = 1536,
        chat: bool = True,
        adapter: str = "",
    ) -> None:
        if dtype not in ("auto", "float32", "bfloat16"):
            raise UserError(f"llm.dtype={dtype}: choose auto, float32 or bfloat16.")
        self.reference = model
        self.dtype = dtype
        self.batch_tokens = batch_tokens
        self.max_prompt_tokens = max_prompt_tokens
        self.chat = chat
        self.adapter = adapter

    def exact(self, template: Template) -> bool:
        """True without steps: the label is the first thing the model says, so its distribution can be read."""
        return not template.steps and template.scoring != "generation"

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """The template as it is: the model is made to keep to any. Loads the tokenizer only.

        Raises:
            UserError: the model cannot be loaded, or has no chat template though `llm.chat` asks for one.
        """
        if self.chat and not self._tokenizer.chat_template:
            raise UserError(f"llm.chat=true, but {self.reference} has no chat template. Use llm.chat=false.")
        return template

    def answers(self, tasks: Iterable[Task], template: Template, sampling: Sampling) -> Generator[list[Answer]]:
        """Answer every task, shortest prompts first, in batches of at most `batch_tokens`.

        Raises:
            UserError: the model cannot be loaded, has no chat template though `llm.chat` asks for one, gives numbers
                that are not finite, or `llm.max_prompt_tokens` leaves no room for a text.
        """
        import torch

        tasks = list(tasks)
        if not tasks:
            return
        prompts, dropped = self._prompts(tasks, self.prepare(template, sampling))
        ask = self._generate if template.scoring == "generation" else self._score if self.exact(template) else self._sample
        # As a decorator it covers the generator's own work only, not what the caller does between two batches.
        for batch in torch.inference_mode()(ask)(tasks, prompts, template, sampling):
            yield [replace(each, dropped=dropped[each.id]) if each.id in dropped else each for each in batch]

    # -- prompts ---------------------------------------------------------------------------------------------------

    def _prompts(self, tasks: Sequence[Task], template: Template) -> tuple[list[list[int]], dict[str, int]]:
        """Token ids of every task's prompt. Long ones lose whole demonstrations, farthest first, then the text's end.

        Returns:
            The prompts, and how many demonstrations were dropped, by the id of each task that lost any.
        """
        clip = self._clip(template.max_text_tokens)
        most = self._longest(template)
        prompts, dropped, cut = [], {}, 0
        for task in tasks:
            shown = [type(each)(clip(each.text), each.label, each.rationale) for each in task.demonstrations]
            text = clip(task.text)
            ids = self._encode(template, shown, text)
            while len(ids) > most and shown:
                shown = shown[1:]
                ids = self._encode(template, shown, text)
            if len(ids) > most:
                cut += 1
                kept = self._ids(text)
                room = most - (len(ids) - len(kept))
                if room < 1:
                    raise UserError(
                        f"llm.max_prompt_tokens={most}: the prompt without any text takes "
                        f"{len(ids) - len(kept)} tokens. Raise it, or shorten prompt.instruction."
                    )
                # A cut text may encode to a token more than it was cut to, so the cut is made again until it fits.
                while len(ids) > most and room > 0:
                    ids = self._encode(template, shown, self._tokenizer.decode(kept[:room]))
                    room -= 1
            if len(shown) < len(task.demonstrations):
                dropped[task.id] = len(task.demonstrations) - len(shown)
            prompts.append(ids)
        if dropped or cut:
            log.info(
                "a prompt may have %d tokens (llm.max_prompt_tokens): %d prompts lost demonstrations, %d texts were cut",
                most, len(dropped), cut,
            )  # fmt: skip
        return prompts, dropped

    def _longest(self, template: Template) -> int:
        """Tokens that a prompt may have: `max_prompt_tokens`, or fewer where the model's positions end before the answer's."""
        positions = getattr(self._config, "max_position_embeddings", None)
        if not positions or self._config.is_encoder_decoder:
            return self.max_prompt_tokens
        return min(self.max_prompt_tokens, positions - _written(template))

    def _encode(self, template: Template, shown: Sequence[Any], text: str) -> list[int]:
        if not self.chat:
            # The word to come brings its own leading space, so the prompt ends without one.
            return self._ids(template.plain(shown, text), special=True)
        prompt = self._tokenizer.apply_chat_template(template.messages(shown, text), add_generation_prompt=True, tokenize=False)
        return self._ids(prompt)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return self._tokenizer(text, add_special_tokens=special).input_ids

    def encode(self, texts: Sequence[str], template: Template) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids to tune the model with: each text's prompt, without demonstrations, and each label's word behind it.

        They are those that `answers` reads, so a model is tuned on the very words it is then asked with.

        Raises:
            UserError: as `answers`.
        """
        prompts, _ = self._prompts([Task("", text, (), (0,)) for text in texts], self.prepare(template, Sampling(0.0, 0)))
        return prompts, self._words(template, "" if self.chat else " ")

    @property
    def tokenizer(self) -> Any:
        """The model's own."""
        return self._tokenizer

    @property
    def pad_id(self) -> int:
        """The token that fills up rows; a tokenizer without one pads with its end."""
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def _clip(self, tokens: int) -> Callable[[str], str]:
        """Cuts a text to so many tokens; the same demonstration comes many times, so results are kept."""
        seen: dict[str, str] = {}

        def clip(text: str) -> str:
            if text not in seen:
                ids = self._ids(text)
                seen[text] = text if len(ids) <= tokens else self._tokenizer.decode(ids[:tokens])
            return seen[text]

        return clip

    # -- direct: the exact distribution ----------------------------------------------------------------------------

    def _score(
        self, tasks: Sequence[Task], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Answer]]:
        """One answer a task, with the log-probability of every label's word as the next thing said."""

        words = self._words(template, "" if self.chat else " ")
        shared = self._shared(prompts)
        prefix = self._prefix(prompts[0][:shared])
        endings = [prompt[shared:] for prompt in prompts]
        # A cached prefix is not computed again, but each row holds and reads its own copy of the keys and values.
        lengths = [_passes(words) * (len(each) + shared // 8) for each in endings]
        for batch in self._batches(lengths, self.batch_tokens):
            started = perf_counter()
            scores = self._word_scores([endings[i] for i in batch], words, prefix, mean=template.scoring == "mean").tolist()
            seconds = (perf_counter() - started) / len(batch)
            yield [
                Answer(
                    tasks[i].id, 0, log_probabilities=dict(zip(template.words, row, strict=True)),
                    tokens_in=len(prompts[i]), seconds=seconds,
                )
                for i, row in zip(batch, scores, strict=True)
            ]  # fmt: skip

    def _words(self, template: Template, lead: str) -> list[list[int]]:
        """Token ids of the label words, as they follow the prompt."""
        words = [self._ids(lead + word) for word in template.words.values()]
        if len({tuple(each) for each in words}) < len(words):
            raise UserError(f"prompt.wording: two words are the same to {self.reference}: {list(template.words.values())}")
        return words

    def _word_scores(
        self, prompts: Sequence[list[int]], words: Sequence[list[int]], prefix: Any, *, mean: bool = False
    ) -> "torch.Tensor":
        """(texts, labels) log-probabilities of the words, normalised over the labels.

        A word's is the sum over its tokens, or the mean: a sum makes words of several tokens less probable. Words of one
        token each are read from a single pass a text.
        """
        import torch

        if self._encodes:
            sums = self._decoded(prompts, words)
        elif _passes(words) == 1:
            sums = self._logits(prompts, 1, prefix)[:, -1].log_softmax(-1)[:, [word[0] for word in words]]
        else:
            longest = max(len(word) for word in words)
            # Padding stands left, so every row ends with its word; only the positions that predict word tokens are kept.
            steps = self._logits([prompt + word for prompt in prompts for word in words], longest + 1, prefix).log_softmax(-1)
            of_row = []
            for row, word in enumerate(list(words) * len(prompts)):
                of_row.append(steps[row, range(-len(word) - 1, -1), word].sum())
            sums = torch.stack(of_row).view(len(prompts), len(words))
        sums = sums.cpu().double()
        scores = (sums / sums.new_tensor([len(word) for word in words]) if mean else sums).log_softmax(-1)
        if not torch.isfinite(scores).all():
            raise self._not_finite()
        return scores

    def _decoded(self, prompts: Sequence[list[int]], words: Sequence[list[int]]) -> "torch.Tensor":
        """(texts, labels) log-probabilities of the words as the first thing the decoder says; texts are encoded once."""
        import torch

        ids, mask = self._padded(prompts)
        encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        longest = max(len(word) for word in words)
        start = self._model.config.decoder_start_token_id
        # Padding stands right: what comes after a token does not change it.
        inputs = ids.new_tensor([[start, *word[:-1], *[self.pad_id] * (longest - len(word))] for word in words])
        passes = _passes(words)
        out = self._model(
            encoder_outputs=(encoded.repeat_interleave(passes, 0),),
            attention_mask=mask.repeat_interleave(passes, 0),
            decoder_input_ids=inputs[:passes].repeat(len(prompts), 1),
        )
        steps = out.logits.float().log_softmax(-1).view(len(prompts), passes, longest, -1)
        sums = [steps[:, number % passes, range(len(word)), word].sum(-1) for number, word in enumerate(words)]
        return torch.stack(sums, 1)

    def _not_finite(self) -> UserError:
        return UserError(f"llm.model={self.reference} gives numbers that are not finite; try llm.dtype=float32.")

    def _shared(self, prompts: Sequence[list[int]]) -> int:
        """How many tokens all prompts start with, where that is worth a cache (demonstrations shared), else 0."""
        if not self._continues or len(prompts) < 2:
            return 0
        shortest = min(len(prompt) for prompt in prompts) - 1  # every prompt keeps a token of its own
        columns = enumerate(zip(*prompts, strict=False))
        shared = next((at for at, tokens in columns if at >= shortest or len(set(tokens)) > 1), shortest)
        return shared if shared >= WORTH_CACHING else 0

    def _prefix(self, ids: list[int]) -> Any:
        """The key-value cache of the tokens that every prompt starts with, or None."""
        if not ids:
            return None
        tokens, _ = self._padded([ids])
        return self._model(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values

    def _logits(self, rows: Sequence[list[int]], keep: int, prefix: Any) -> "torch.Tensor":
        """(rows, keep, vocabulary) float32 logits at the last `keep` positions of rows that continue `prefix`."""
        import torch

        ids, mask = self._padded(rows)
        cached = 0 if prefix is None else prefix.get_seq_length()
        positions = cached + (mask.cumsum(1) - 1).clamp(min=0)
        cache = None
        if cached:
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(len(rows))
            mask = torch.cat([mask.new_ones(len(rows), cached), mask], dim=1)
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        )
        return out.logits.float()

    # -- with steps: sampled answers ---------------------------------------------------------------------------------

    def _sample(
        self, tasks: list[Task], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Answer]]:
        """One answer a sample: a line under each step's header, then a label drawn from its distribution after that.

        The headers are put there for the model, so every answer has a label, however badly the model keeps to forms.
        With `sampling.stop_at`, each round asks every text for as many samples as may decide it, until all are decided.
        """
        if self.chat:
            prompts = [prompt + self._ids(template.steps[0]) for prompt in prompts]
        decode = partial(self._tokenizer.decode, skip_special_tokens=True)
        headers, words = (*template.steps[1:], template.answer_header), self._words(template, " ")
        form = decoding.Form(headers, words, template.step_tokens or STEP_TOKENS, self._ends, self._ids, decode)
        shared = self._shared(prompts)
        prefix = self._prefix(prompts[0][:shared])
        endings = [prompt[shared:] for prompt in prompts]

        votes = [Counter(task.votes) for task in tasks]
        left = [list(task.samples) for task in tasks]
        while True:
            now = [needed(votes[i], len(left[i]), sampling.stop_at) for i in range(len(tasks))]
            asked = [i for i in range(len(tasks)) if now[i]]
            if not asked:
                return
            held = [self._tokens(len(prompts[i]), shared, now[i], form.most) for i in asked]
            for picked in self._batches(held, HELD * self.batch_tokens):
                batch = [asked[i] for i in picked]
                rows = [(i, number) for i in batch for number in left[i][: now[i]]]
                started = perf_counter()
                samples = [decoding.Sample(f"{sampling.seed}\0{tasks[i].id}\0{number}") for i, number in rows]
                ids, mask = self._padded([endings[i] for i in batch])
                texts = ids.new_tensor([batch.index(i) for i, _ in rows])
                decoding.write(self._rows(self._model, prefix, ids, mask, texts), samples, form, sampling.temperature)
                seconds = (perf_counter() - started) / len(rows)
                answers = []
                for (i, number), sample in zip(rows, samples, strict=True):
                    label = self._label(sample, template, sampling.temperature)
                    lines = zip((*template.steps, template.answer_header), (*sample.lines, template.words[label]), strict=True)
                    answers.append(
                        Answer(
                            tasks[i].id,
                            number,
                            raw="\n".join(f"{header} {line}" for header, line in lines),
                            label=label,
                            rationale=tuple(sample.lines) if all(sample.lines) else None,
                            tokens_in=len(prompts[i]) if number == left[i][0] else 0,
                            tokens_out=sample.tokens,
                            seconds=seconds,
                        )
                    )
                    votes[i][label] += 1
                for i in batch:
                    del left[i][: now[i]]
                yield answers

    def _label(self, sample: decoding.Sample, template: Template, temperature: float) -> str:
        if not all(map(math.isfinite, sample.scores)):
            raise self._not_finite()
        scores = sample.scores
        if template.scoring == "mean":
            scores = [score / len(word) for score, word in zip(scores, self._words(template, " "), strict=True)]
        return decoding.draw(dict(zip(template.words, scores, strict=True)), temperature, sample.seed)

    def _tokens(self, prompt: int, shared: int, samples: int, most: int) -> int:
        """Tokens whose keys and values a text and its samples hold at most, what all texts share left out."""
        if self._rows is decoding.Rows:
            return prompt - shared + samples * most
        return samples * (prompt + most)

    # -- generation: what the model writes of itself -------------------------------------------------------------------

    def _generate(
        self, tasks: list[Task], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Answer]]:
        """The likeliest text, token by token, for every task; the label that it names, if any, is read by `Template.parse`.

        Nothing is put into the model's mouth here: an answer may name no label.
        """
        if sampling.temperature:
            raise UserError("Generation takes the likeliest text: set annotate.temperature=0 and annotate.samples=1.")
        most = _written(template)
        for batch in self._batches([len(prompt) + most for prompt in prompts], self.batch_tokens):
            started = perf_counter()
            ids, mask = self._padded([prompts[i] for i in batch])
            with quiet():
                out = self._model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=most, pad_token_id=self.pad_id,
                    eos_token_id=sorted(self._ends), do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None,
                )  # fmt: skip
            written = out[:, 1:] if self._encodes else out[:, ids.shape[1] :]
            seconds = (perf_counter() - started) / len(batch)
            answers = []
            for i, row in zip(batch, written.tolist(), strict=True):
                tokens = row[: next((at + 1 for at, token in enumerate(row) if token in self._ends), len(row))]
                raw = self._tokenizer.decode(tokens, skip_special_tokens=True).strip()
                if not self.chat:  # a model that completes goes on with the next text; blocks end with an empty line
                    raw = raw.partition("\n\n")[0]
                answers += [
                    Answer(
                        tasks[i].id, number, raw=raw, label=template.parse(raw), rationale=template.rationale(raw),
                        tokens_in=len(prompts[i]) if first else 0, tokens_out=len(tokens) if first else 0,
                        seconds=seconds if first else 0.0, attempts=int(first),
                    )
                    for number in tasks[i].samples
                    for first in [number == tasks[i].samples[0]]
                ]  # fmt: skip
            yield answers

    # -- model -----------------------------------------------------------------------------------------------------

    @cached_property
    def _folder(self) -> str:
        return locate(self.reference)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            # Clean-up would take the spaces before punctuation out of texts that are cut or generated.
            with quiet():
                return AutoTokenizer.from_pretrained(self._folder, clean_up_tokenization_spaces=False)
        except (OSError, ValueError) as error:
            raise UserError(f"llm.model={self.reference} cannot be loaded: {_line(error)}") from error

    @cached_property
    def _encodes(self) -> bool:
        """Whether the model has an encoder for the prompt and a decoder for the answer."""
        return bool(self._config.is_encoder_decoder)

    @cached_property
    def _continues(self) -> bool:
        """Whether rows of different lengths can go on from one cache.

        Not with an encoder, which reads a prompt as a whole, and not where layers see a window of positions: the padding
        between the cache and a shorter row would take up part of it.
        """
        from transformers.cache_utils import DynamicCache, DynamicLayer

        layers = DynamicCache(config=self._model.config).layers
        return not self._encodes and all(type(layer) is DynamicLayer for layer in layers)

    @cached_property
    def _rows(self) -> type[decoding.Rows]:
        if self._encodes:
            return decoding.DecoderRows
        return decoding.Rows if decoding.share(self._model) else decoding.CopiedRows

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        try:
            with quiet():
                return AutoConfig.from_pretrained(self._folder)
        except (OSError, ValueError) as error:
            raise UserError(f"llm.model={self.reference} cannot be loaded: {_line(error)}") from error

    @cached_property
    def _model(self) -> Any:
        return load(self.reference, self.dtype, self.adapter)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The tokens by which the model ends its answer."""
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return frozenset(each for each in (*ends, self._tokenizer.eos_token_id) if each is not None)

    def _padded(self, rows: Sequence[list[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Token ids and attention mask, (rows, longest) each, padded on the left."""
        import torch

        longest = max(len(row) for row in rows)
        ids = torch.tensor([[self.pad_id] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self._model.device), mask.to(self._model.device)

    def _batches(self, lengths: Sequence[int], most: int) -> Iterator[list[int]]:
        """Indexes by rising length, in batches whose padded size stays within `most` tokens (or of one)."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and lengths[index] * (len(batch) + 1) > most:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _written(template: Template) -> int:
    """Tokens that an answer has at most."""
    return LINE_TOKENS + len(template.steps) * ((template.step_tokens or STEP_TOKENS) + LINE_TOKENS)


def _passes(words: Sequence[list[int]]) -> int:
    """Rows that a text takes in a forward pass."""
    return 1 if all(len(word) == 1 for word in words) else len(words)

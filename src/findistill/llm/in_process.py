"""Annotate with a language model in this process, causal or encoder-decoder (T5).

Without steps, the exact label distribution is read from one forward pass per text. With steps, the lines of each response
are sampled, and its label is drawn from the distribution that follows them.
"""

import logging
import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from findistill.errors import UserError
from findistill.llm import decoding
from findistill.llm.calibration import normalised
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.language_model import LanguageModel, response_tokens, step_tokens
from findistill.llm.prompts import Template
from findistill.llm.shared_attention import share_attention
from findistill.llm.votes import draw_labels, needed
from findistill.models.memory import CACHED_BATCHES
from findistill.models.weights import quiet

log = logging.getLogger(__name__)

WORTH_CACHING = 64  # tokens of a prefix that all prompts share


class InProcessEngine(LanguageModel, Engine):
    """An annotator backed by a Hugging Face model."""

    def exact(self, template: Template) -> bool:
        """True without steps: the label comes first in the response, so its distribution can be read."""
        return not (template.steps or template.free) and template.scoring != "generation"

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """The template unchanged, since decoding enforces any format. Loads only the tokenizer.

        Raises:
            UserError: the model cannot be loaded, or has no chat template though `llm.chat` asks for one.
        """
        self.check_chat_template()
        return template

    def read(self, response: Response, template: Template) -> Response:
        """Parsed again if the label comes from generated text; unchanged if it was drawn."""
        return response.parsed(template) if template.scoring == "generation" or template.free else response

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Respond to every request, shortest prompts first, in batches of at most `batch_tokens`.

        Raises:
            UserError: the model cannot be loaded, has no chat template though `llm.chat` asks for one, gives
                non-finite numbers, or `llm.max_prompt_tokens` leaves no room for a text.
        """
        requests = list(requests)
        if not requests:
            return
        prompts, dropped = self.prompt_ids(requests, self.prepare(template, sampling))
        read = self._generate if template.scoring == "generation" else self._score if self.exact(template) else self._sample
        # As a decorator, inference mode covers only the generator itself, not what the caller does between two batches.
        for batch in torch.inference_mode()(read)(requests, prompts, template, sampling):
            yield [replace(each, dropped=dropped[each.id]) if each.id in dropped else each for each in batch]

    # -- direct: the exact distribution ----------------------------------------------------------------------------

    def _score(
        self, requests: Sequence[Request], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Response]]:
        """One response per request, with the log-probability of every label word as the continuation."""
        form = self._form(template, (), self.word_ids(template, "" if self.chat else " "))
        shared, prefix, endings = self._split(prompts)
        spellings = 1 if all(len(word) == 1 for word in form.words) else len(form.words)  # rows per text
        lengths = [self._tokens(len(prompt), shared, spellings, form.most) for prompt in prompts]
        for batch in self._batches(lengths, self.batch_tokens):
            started = perf_counter()
            samples = [decoding.Sample("") for _ in batch]
            decoding.write(self._start(prefix, [endings[i] for i in batch], range(len(batch))), samples, form, 0)
            seconds = (perf_counter() - started) / len(batch)
            yield [
                Response(
                    requests[i].id, 0, log_probabilities=normalised(self._label_scores(sample, template, form)),
                    tokens_in=len(prompts[i]), seconds=seconds,
                )
                for i, sample in zip(batch, samples, strict=True)
            ]  # fmt: skip

    def _form(self, template: Template, headers: Sequence[str], words: list[list[int]]) -> decoding.AnswerFormat:
        decode = partial(self.tokenizer.decode, skip_special_tokens=True)
        return decoding.AnswerFormat(tuple(headers), words, step_tokens(template), self.ends, self.ids, decode, template.closing)

    def _start(self, prefix: Any, endings: Sequence[list[int]], texts: Iterable[int]) -> decoding.Rows:
        """Rows that continue the texts with these indexes; each prompt is `prefix` plus its ending."""
        ids, mask = self.padded(endings)
        return self._rows(self.lm, prefix, ids, mask, ids.new_tensor(list(texts)))

    def _label_scores(self, sample: decoding.Sample, template: Template, form: decoding.AnswerFormat) -> dict[str, float]:
        """Log-probability of each label word: the sum over its tokens, or the mean, which does not penalise long words."""
        if not all(map(math.isfinite, sample.scores)):
            raise UserError(f"llm.model={self.model} produces non-finite scores; try llm.dtype=float32.")
        lengths = [len(word) if template.scoring == "mean" else 1 for word in form.words]
        return {name: score / n for name, score, n in zip(template.words, sample.scores, lengths, strict=True)}

    def _shared(self, prompts: Sequence[list[int]]) -> int:
        """Length of the prefix that all prompts share, if worth caching (shared demonstrations), else 0."""
        if not self._continues or len(prompts) < 2:
            return 0
        shortest = min(len(prompt) for prompt in prompts) - 1  # every prompt keeps a token outside the prefix
        columns = enumerate(zip(*prompts, strict=False))
        shared = next((at for at, tokens in columns if at >= shortest or len(set(tokens)) > 1), shortest)
        return shared if shared >= WORTH_CACHING else 0

    def _split(self, prompts: list[list[int]]) -> tuple[int, Any, list[list[int]]]:
        """Length of the shared prefix, its key-value cache or None, and the rest of every prompt."""
        shared = self._shared(prompts)
        if not shared:
            return 0, None, prompts
        ids, _ = self.padded([prompts[0][:shared]])
        prefix = self.lm(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        return shared, prefix, [prompt[shared:] for prompt in prompts]

    def _tokens(self, prompt: int, shared: int, samples: int, most: int) -> int:
        """Most tokens that a text and its samples hold in the key-value cache, without a prefix that is read in place."""
        if self._rows is decoding.Rows:
            return prompt - shared + samples * most
        return samples * (prompt + most)

    # -- with steps: sampled responses ---------------------------------------------------------------------------------

    def _sample(
        self, requests: list[Request], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Response]]:
        """One response per sample: a line under each step's header, then a label drawn from the distribution that follows.

        The headers are fed to the model, so every response has a label, however poorly the model follows formats. A free
        response is one line that continues its opening.
        With `sampling.stop_at`, each round draws, for every undecided text, only as many samples as might decide it.
        """
        if self.chat:
            prompts = [prompt + self.ids(template.opening) for prompt in prompts]
        headers = ("",) if template.free else (*template.steps, template.answer_header)[1:]
        form = self._form(template, headers, [[self.pad_id]] if template.free else self.word_ids(template, " "))
        shared, prefix, endings = self._split(prompts)
        votes = [Counter(request.votes) for request in requests]
        missing = [list(request.samples) for request in requests]
        while True:
            counts = [needed(votes[i], len(missing[i]), sampling.stop_at) for i in range(len(requests))]
            undecided = [i for i in range(len(requests)) if counts[i]]
            if not undecided:
                return
            lengths = [self._tokens(len(prompts[i]), shared, counts[i], form.most) for i in undecided]
            for indexes in self._batches(lengths, CACHED_BATCHES * self.batch_tokens):
                batch = [undecided[i] for i in indexes]
                rows = [(i, number) for i in batch for number in missing[i][: counts[i]]]
                started = perf_counter()
                samples = [decoding.Sample(f"{sampling.seed}\0{requests[i].id}\0{number}") for i, number in rows]
                texts = self._start(prefix, [endings[i] for i in batch], (batch.index(i) for i, _ in rows))
                decoding.write(texts, samples, form, sampling.temperature)
                seconds = (perf_counter() - started) / len(rows)
                responses = []
                for (i, number), sample in zip(rows, samples, strict=True):
                    response = self._response(requests[i].id, number, sample, template, form, sampling.temperature)
                    tokens_in = len(prompts[i]) if number == missing[i][0] else 0
                    responses.append(replace(response, tokens_in=tokens_in, tokens_out=sample.tokens, seconds=seconds))
                    votes[i].update([] if response.label is None else [response.label])
                for i in batch:
                    del missing[i][: counts[i]]
                yield responses

    def _response(
        self, request: str, number: int, sample: decoding.Sample, template: Template, form: decoding.AnswerFormat,
        temperature: float,
    ) -> Response:  # fmt: skip
        """The response of a sample, with the label drawn after its lines or, in a free response, parsed from it."""
        if template.free:
            [line] = sample.lines
            raw = line if line.startswith(template.opening[:1]) else f"{template.opening} {line}"
            return Response(request, number, raw=raw, label=template.parse(raw))
        scores = self._label_scores(sample, template, form)
        label = draw_labels(scores, temperature, f"{sample.seed}\0label")[0]
        lines = zip((*template.steps, template.answer_header), (*sample.lines, template.words[label]), strict=True)
        raw = "\n".join(f"{header} {line}" for header, line in lines)
        return Response(request, number, raw=raw, label=label, rationale=tuple(sample.lines) if all(sample.lines) else None)

    # -- generation: unconstrained text -------------------------------------------------------------------------------

    def _generate(
        self, requests: list[Request], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Generator[list[Response]]:
        """Decode a response to every request greedily; `Template.parse` reads its label.

        Decoding is unconstrained, so a response may name no label.
        """
        if sampling.temperature:
            raise UserError("Generation decodes greedily: set annotate.temperature=0 and annotate.samples=1.")
        most = response_tokens(template)
        for batch in self._batches([len(prompt) + most for prompt in prompts], self.batch_tokens):
            started = perf_counter()
            ids, mask = self.padded([prompts[i] for i in batch])
            with quiet():
                out = self.lm.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=most, pad_token_id=self.pad_id,
                    eos_token_id=sorted(self.ends), do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None,
                )  # fmt: skip
            written = out[:, 1:] if self.encodes else out[:, ids.shape[1] :]
            seconds = (perf_counter() - started) / len(batch)
            responses = []
            for i, row in zip(batch, written.tolist(), strict=True):
                tokens = row[: next((at + 1 for at, token in enumerate(row) if token in self.ends), len(row))]
                raw = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                if not self.chat:  # a completion model continues with the next text; blocks end with an empty line
                    raw = raw.partition("\n\n")[0]
                response = Response(
                    requests[i].id, requests[i].samples[0], raw=raw, label=template.parse(raw), rationale=template.rationale(raw),
                    tokens_in=len(prompts[i]), tokens_out=len(tokens), seconds=seconds,
                )  # fmt: skip
                responses += [response, *(response.for_sample(number) for number in requests[i].samples[1:])]
            yield responses

    @cached_property
    def _continues(self) -> bool:
        """Whether rows of different lengths can continue from one cache.

        Not with an encoder, which reads a prompt as a whole, nor with sliding-window layers: the padding between the cache
        and a shorter row would take up part of the window.
        """
        layers = DynamicCache(config=self.lm.config).layers
        return not self.encodes and all(type(layer) is DynamicLayer for layer in layers)

    @cached_property
    def _rows(self) -> type[decoding.Rows]:
        if self.encodes:
            return decoding.DecoderRows
        return decoding.Rows if share_attention(self.lm) else decoding.CopiedRows

    def _batches(self, lengths: Sequence[int], most: int) -> Iterator[list[int]]:
        """Indexes by ascending length, in batches of at most `most` tokens with padding (or of a single index)."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and lengths[index] * (len(batch) + 1) > most:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

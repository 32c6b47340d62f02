"""Annotate with vLLM in this process: many requests at once, paged keys and values, shared prefixes, several GPUs.

It samples like a server, `n` responses to a request together, as JSON by the template's schema. Written for vLLM 0.33's public
`LLM`, `SamplingParams` and `LoRARequest`, from their documentation: our tests have no GPU.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from peft import PeftConfig

from findistill.core.step import load
from findistill.errors import UserError
from findistill.llm import chat
from findistill.llm.config import VllmLLM
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.prompts import Template
from findistill.llm.text import one_line, truncate, without_controls
from findistill.llm.votes import needed
from findistill.models.causal_lm import find_adapter
from findistill.models.weights import NO_CODE, locate

log = logging.getLogger(__name__)

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Arguments of vllm.LLM that name code to run.
RUNS_CODE = (
    "trust_remote_code",
    "worker_cls",
    "worker_extension_cls",
    "logits_processors",
    "scheduler_cls",
    "compilation_config",
)


@dataclass
class Draw:
    """Samples of one request that are drawn together; `earlier` is a previous attempt that named no label."""

    request: Request
    samples: tuple[int, ...]
    attempt: int = 0
    dropped: int = 0  # demonstrations
    earlier: Response | None = None


@dataclass(eq=False)
class VllmEngine(VllmLLM, Engine):
    """An annotator that vLLM runs, created from its settings; the model is loaded at the first request."""

    def __post_init__(self) -> None:
        if self.extra_engine is not None and not isinstance(self.extra_engine, Mapping):
            raise UserError(
                f"llm.extra_engine={self.extra_engine}: must map arguments to values, llm.extra_engine={{enforce_eager: true}}."
            )
        if refused := [name for name in self.extra_engine or () if name in RUNS_CODE]:
            raise UserError(
                f"llm.extra_engine.{refused[0]} is refused: vLLM would run code that a configuration or a model names"
            )

    def prepare(self, template: Template, sampling: Sampling) -> Template:
        """The template, `structured` as `llm.structured` says. Nothing is loaded.

        Raises:
            UserError: vLLM is not installed, or this machine has no GPU.
        """
        if find_spec("vllm") is None:
            raise UserError(
                "llm=vllm needs the package vllm: pip install 'findistill[vllm]'\n"
                "llm=vllm_server annotates through a vLLM server elsewhere, and llm=smollm2 in this process on a CPU."
            )
        if not torch.cuda.is_available():
            raise UserError(
                "llm=vllm needs a GPU, and this machine has none that torch can use.\n"
                "llm=vllm_server annotates through a vLLM server elsewhere, and llm=smollm2 in this process on a CPU."
            )
        return replace(template, structured=self.structured)

    def read(self, response: Response, template: Template) -> Response:
        return response.parsed(template)

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Respond to every request, `llm.texts_at_once` of them together.

        Raises:
            UserError: as `prepare`, or the model cannot be loaded.
        """
        template = self.prepare(template, sampling)
        queue = iter(requests)
        while some := [*islice(queue, self.texts_at_once)]:
            yield from self._respond(some, template, sampling)

    def _respond(self, requests: Sequence[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """Draw in rounds, until the votes of each request need no more; unreadable samples are drawn again first."""
        votes = {request.id: Counter(request.votes) for request in requests}
        missing = {request.id: list(request.samples) for request in requests}
        again: list[Draw] = []
        while True:
            waiting = {draw.request.id for draw in again}
            draws = again + [
                Draw(request, tuple(missing[request.id][:count]))
                for request in requests
                if request.id not in waiting and (count := needed(votes[request.id], len(missing[request.id]), sampling.stop_at))
            ]
            if not draws:
                return
            again, final = [], []
            for draw, responses in zip(draws, self._draw(draws, template, sampling), strict=True):
                for response in responses:
                    unreadable = response.label is None and response.error is None
                    if unreadable and draw.attempt < sampling.retries:
                        again.append(replace(draw, samples=(response.sample,), attempt=draw.attempt + 1, earlier=response))
                        continue
                    missing[response.id].remove(response.sample)
                    votes[response.id].update([] if response.label is None else [response.label])
                    final.append(response)
            if final:
                yield final

    def _draw(self, draws: Sequence[Draw], template: Template, sampling: Sampling) -> list[list[Response]]:
        """The responses of every draw; errors for one that vLLM refuses, such as a prompt that is too long."""
        started = perf_counter()
        try:
            outputs = self._chat(draws, template, sampling)
        except ValueError as error:
            if len(draws) > 1:  # one of them is to blame, but the error does not say which
                return [responses for draw in draws for responses in self._draw([draw], template, sampling)]
            [draw] = draws
            if draw.dropped < len(draw.request.demonstrations):
                return self._draw([replace(draw, dropped=draw.dropped + 1)], template, sampling)
            first = Response(draw.request.id, draw.samples[0], error=one_line(str(error))[:300])
            return [[first, *map(first.for_sample, draw.samples[1:])]]
        seconds = (perf_counter() - started) / len(draws)
        return [self._read(draw, output, template, seconds) for draw, output in zip(draws, outputs, strict=True)]

    def _chat(self, draws: Sequence[Draw], template: Template, sampling: Sampling) -> list[Any]:
        schema = {"structured_outputs": load("vllm.sampling_params:StructuredOutputsParams")(json=template.schema)}
        parameters = load("vllm:SamplingParams")
        conversations, settings = [], []
        for draw in draws:
            words = template.max_text_tokens
            examples = [each.truncated(words) for each in draw.request.demonstrations[draw.dropped :]]
            conversations.append(template.messages(examples, truncate(draw.request.text, words)[0]))
            settings.append(parameters(
                n=len(draw.samples), temperature=sampling.temperature, max_tokens=self.max_tokens,
                seed=chat.request_seed(sampling.seed, draw.request.id, draw.samples[0], draw.attempt),
                logprobs=None if template.free else 0, **(schema if template.structured else {}),
            ))  # fmt: skip
        outputs = self._model.chat(conversations, settings, use_tqdm=False, lora_request=self._lora)
        return list(outputs)

    def _read(self, draw: Draw, output: Any, template: Template, seconds: float) -> list[Response]:
        responses: list[Response] = []
        for sample, choice in zip(draw.samples, output.outputs, strict=True):
            raw = without_controls(choice.text)
            cut = choice.finish_reason == "length"
            label = template.parse(raw, cut=cut)
            word = None if label is None or template.free else template.words[label]
            responses.append(Response(
                draw.request.id, sample, raw=raw, label=label, cut=cut or None, rationale=template.rationale(raw),
                confidence=None if word is None else chat.confidence(_tokens(choice), word), dropped=draw.dropped or None,
                attempts=0, tokens_out=len(choice.token_ids),
            ))  # fmt: skip
        first = replace(
            responses[0], attempts=1, tokens_in=len(output.prompt_token_ids), tokens_cached=output.num_cached_tokens or 0,
            seconds=seconds,
        )  # fmt: skip
        return [first.after(draw.earlier) if draw.earlier else first, *responses[1:]]

    @cached_property
    def _model(self) -> Any:
        """vLLM's model, which holds its share of the GPU's memory as long as this engine lives."""
        lora = {"enable_lora": True, "max_lora_rank": self._rank} if self.adapter else {}
        log.info("loading %s with vLLM on %d GPUs", self.model, self.tensor_parallel_size)
        try:
            return load("vllm:LLM")(
                model=locate(self.model), dtype=self.dtype, quantization=self.quantization, max_model_len=self.max_model_len,
                tensor_parallel_size=self.tensor_parallel_size, gpu_memory_utilization=self.gpu_memory_utilization,
                enable_prefix_caching=True, generation_config="vllm", **lora, **dict(self.extra_engine or {}), **NO_CODE,
            )  # fmt: skip
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            raise UserError(
                f"llm.model={self.model} cannot be loaded by vLLM: {one_line(str(error))[:300]}\n"
                f"If memory runs out: llm.tensor_parallel_size={2 * self.tensor_parallel_size}, or llm.quantization=fp8."
            ) from error

    @cached_property
    def _lora(self) -> Any:
        if not self.adapter:
            return None
        return load("vllm.lora.request:LoRARequest")("adapter", 1, find_adapter(self.adapter).where)

    @property
    def _rank(self) -> int:
        """The smallest rank that vLLM supports and that is at least the adapter's."""
        rank = int(PeftConfig.from_pretrained(find_adapter(self.adapter).where).r)
        return next((each for each in RANKS if each >= rank), rank)


def _tokens(choice: Any) -> list[tuple[str, float]]:
    """The tokens of a choice with their log-probabilities."""
    pairs = zip(choice.token_ids, choice.logprobs or (), strict=False)
    chosen = [options[token] for token, options in pairs]
    return [(each.decoded_token or "", each.logprob) for each in chosen]

"""Annotate with a causal language model in this process.

Without a rationale the label's exact distribution is read from one forward pass a text; with one, it is
sampled first and the label then drawn from its distribution after it.
"""

import copy
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Template
from findistill.runs import hardware
from findistill.runs.weights import locate, quiet

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

RATIONALE_TOKENS = 48  # a short opinion
WORTH_CACHING = 64  # tokens that all prompts start with


class InProcessEngine:
    """An annotator made of a Hugging Face causal model; the fields are those of `settings.schema.InProcessLLM`."""

    def __init__(
        self,
        model: str,
        *,
        name: str = "",
        dtype: str = "auto",
        batch_tokens: int = 4096,
        max_prompt_tokens: int = 1536,
        chat: bool = True,
    ) -> None:
        if dtype not in ("auto", "float32", "bfloat16"):
            raise UserError(f"llm.dtype={dtype}: choose auto, float32 or bfloat16.")
        self.reference = model
        self.dtype = dtype
        self.batch_tokens = batch_tokens
        self.max_prompt_tokens = max_prompt_tokens
        self.chat = chat

    def exact(self, template: Template) -> bool:
        """True without a rationale: the label is the first thing the model says, so its distribution can be read."""
        return template.rationale_header is None

    def answers(self, tasks: Sequence[Task], template: Template, sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every task, shortest prompts first, in batches of at most `batch_tokens`.

        Raises:
            UserError: the model cannot be loaded, has no chat template though `llm.chat` asks for one, or
                `llm.max_prompt_tokens` leaves no room for a text.
        """
        import torch

        prompts = self._prompts(tasks, template)
        ask = self._score if self.exact(template) else self._generate
        with torch.inference_mode():
            yield from ask(tasks, prompts, template, sampling)

    # -- prompts ---------------------------------------------------------------------------------------------------

    def _prompts(self, tasks: Sequence[Task], template: Template) -> list[list[int]]:
        """Token ids of every task's prompt. Long ones lose whole demonstrations, farthest first, then the text's end."""
        if self.chat and not self._tokenizer.chat_template:
            raise UserError(f"llm.chat=true, but {self.reference} has no chat template. Use llm.chat=false.")
        clip = self._clip(template.max_text_tokens)
        prompts, fewer, cut = [], 0, 0
        for task in tasks:
            shown = [type(each)(clip(each.text), each.label, each.rationale) for each in task.demonstrations]
            text = clip(task.text)
            ids = self._encode(template, shown, text)
            while len(ids) > self.max_prompt_tokens and shown:
                shown = shown[1:]
                ids = self._encode(template, shown, text)
            if len(ids) > self.max_prompt_tokens:
                cut += 1
                kept = self._ids(text)
                room = self.max_prompt_tokens - (len(ids) - len(kept))
                if room < 1:
                    raise UserError(
                        f"llm.max_prompt_tokens={self.max_prompt_tokens}: the prompt without any text takes "
                        f"{len(ids) - len(kept)} tokens. Raise it, or shorten prompt.instruction."
                    )
                # A cut text may encode to a token more than it was cut to, so the cut is made again until it fits.
                while len(ids) > self.max_prompt_tokens and room > 0:
                    ids = self._encode(template, shown, self._tokenizer.decode(kept[:room]))
                    room -= 1
            fewer += len(shown) < len(task.demonstrations)
            prompts.append(ids)
        if fewer or cut:
            log.info(
                "llm.max_prompt_tokens=%d: %d prompts lost demonstrations, %d texts were cut",
                self.max_prompt_tokens,
                fewer,
                cut,
            )
        return prompts

    def _encode(self, template: Template, shown: Sequence[Any], text: str) -> list[int]:
        if not self.chat:
            # The word to come brings its own leading space, so the prompt ends without one.
            return self._ids(template.plain(shown, text), special=True)
        prompt = self._tokenizer.apply_chat_template(template.messages(shown, text), add_generation_prompt=True, tokenize=False)
        return self._ids(prompt)

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        return self._tokenizer(text, add_special_tokens=special).input_ids

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
    ) -> Iterator[list[Answer]]:
        """One answer a task, with the log-probability of every label's word as the next thing said."""

        words = self._words(template, "" if self.chat else " ")
        shared = self._shared(prompts)
        prefix = self._prefix(prompts[0][:shared])
        endings = [prompt[shared:] for prompt in prompts]
        # A cached prefix is not computed again, but each row holds and reads its own copy of the keys and values.
        lengths = [_passes(words) * (len(each) + shared // 8) for each in endings]
        with self._progress(len(tasks)) as bar:
            for batch in self._batches(lengths):
                started = perf_counter()
                scores = self._word_scores([endings[i] for i in batch], words, prefix)
                seconds = (perf_counter() - started) / len(batch)
                yield [
                    Answer(
                        tasks[i].id, 0, log_probabilities=dict(zip(template.words, row, strict=True)),
                        tokens_in=len(prompts[i]), seconds=seconds,
                    )
                    for i, row in zip(batch, scores.tolist(), strict=True)
                ]  # fmt: skip
                bar.update(len(batch))

    def _words(self, template: Template, lead: str) -> list[list[int]]:
        """Token ids of the label words, as they follow the prompt."""
        words = [self._ids(lead + word) for word in template.words.values()]
        if len({tuple(each) for each in words}) < len(words):
            raise UserError(f"prompt.wording: two words are the same to {self.reference}: {list(template.words.values())}")
        return words

    def _word_scores(self, prompts: Sequence[list[int]], words: Sequence[list[int]], prefix: Any) -> "torch.Tensor":
        """(texts, labels) log-probabilities of the words, normalised over the labels.

        A word's is the sum over its tokens. Words of one token each are read from a single pass a text.
        """
        import torch

        if _passes(words) == 1:
            sums = self._logits(prompts, 1, prefix)[:, -1].log_softmax(-1)[:, [word[0] for word in words]]
        else:
            longest = max(len(word) for word in words)
            # Padding stands left, so every row ends with its word; only the positions that predict word tokens are kept.
            steps = self._logits([prompt + word for prompt in prompts for word in words], longest + 1, prefix).log_softmax(-1)
            of_row = []
            for row, word in enumerate(list(words) * len(prompts)):
                of_row.append(steps[row, range(-len(word) - 1, -1), word].sum())
            sums = torch.stack(of_row).view(len(prompts), len(words))
        scores = sums.double().log_softmax(-1).cpu()
        if not torch.isfinite(scores).all():
            raise UserError(f"llm.model={self.reference} gives numbers that are not finite; try llm.dtype=float32.")
        return scores

    def _shared(self, prompts: Sequence[list[int]]) -> int:
        """How many tokens all prompts start with, where that is worth a cache (demonstrations shared), else 0."""
        shortest = min(len(prompt) for prompt in prompts) - 1  # every prompt keeps a token of its own
        columns = enumerate(zip(*prompts, strict=False))
        shared = next((at for at, tokens in columns if at >= shortest or len(set(tokens)) > 1), shortest)
        return shared if shared >= WORTH_CACHING and len(prompts) > 1 else 0

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

    # -- with a rationale: sampled answers -------------------------------------------------------------------------

    def _generate(
        self, tasks: Sequence[Task], prompts: list[list[int]], template: Template, sampling: Sampling
    ) -> Iterator[list[Answer]]:
        """One answer a sample: the rationale is sampled under its header, then the label from its distribution after that.

        The headers are put there for the model, so every answer has a label, however badly the model keeps to forms.
        Every sample has its own random numbers, so batches and resuming do not change it.
        """
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        jobs = [(number, sample) for number, task in enumerate(tasks) for sample in task.samples]
        config = GenerationConfig(
            max_new_tokens=RATIONALE_TOKENS,
            do_sample=False,
            pad_token_id=self._pad,
            eos_token_id=self._model.generation_config.eos_token_id,
        )
        header = str(template.rationale_header)
        starts = [prompt + self._ids(header) for prompt in prompts] if self.chat else prompts
        words = self._words(template, " ")
        with self._progress(len(jobs)) as bar:
            for batch in self._batches([_passes(words) * (len(prompts[number]) + RATIONALE_TOKENS) for number, _ in jobs]):
                started = perf_counter()
                rows = [jobs[i] for i in batch]
                ids, mask = self._padded([starts[number] for number, _ in rows])
                seeds = [f"{sampling.seed}\0{tasks[number].id}\0{sample}" for number, sample in rows]
                noise = [_Gumbel(seeds, sampling.temperature)] if sampling.temperature else []
                written = self._model.generate(
                    input_ids=ids, attention_mask=mask, generation_config=config,
                    logits_processor=LogitsProcessorList(noise),
                    stopping_criteria=StoppingCriteriaList([_LineWritten(self._tokenizer, ids.shape[1])]),
                )[:, ids.shape[1] :]  # fmt: skip
                lines = [_first_line(each) for each in self._tokenizer.batch_decode(written, skip_special_tokens=True)]
                endings = [self._ids(f" {line}\n{template.answer_header}") for line in lines]
                prompted = [starts[number] + ending for (number, _), ending in zip(rows, endings, strict=True)]
                scores = self._word_scores(prompted, words, None).tolist()
                seconds = (perf_counter() - started) / len(batch)
                found = []
                for (number, sample), seed, line, ending, row in zip(rows, seeds, lines, endings, scores, strict=True):
                    label = _draw(dict(zip(template.words, row, strict=True)), sampling.temperature, seed)
                    found.append(
                        Answer(
                            tasks[number].id,
                            sample,
                            raw=f"{header} {line}\n{template.answer_header} {template.words[label]}",
                            label=label,
                            rationale=line or None,
                            tokens_in=len(starts[number]),
                            tokens_out=len(ending) + 1,
                            seconds=seconds,
                        )
                    )
                yield found
                bar.update(len(batch))

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
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        device = hardware.device()
        fast = device != "cpu" or hardware.cpu_has_fast_bf16()
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(self.dtype, torch.bfloat16 if fast else torch.float32)
        try:
            with quiet():
                model = AutoModelForCausalLM.from_pretrained(self._folder, dtype=dtype)
        except (OSError, ValueError) as error:
            raise UserError(f"llm.model={self.reference} cannot be loaded: {_line(error)}") from error
        return model.eval().to(device)

    @property
    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id if pad is None else pad)

    def _padded(self, rows: Sequence[list[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Token ids and attention mask, (rows, longest) each, padded on the left."""
        import torch

        longest = max(len(row) for row in rows)
        ids = torch.tensor([[self._pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self._model.device), mask.to(self._model.device)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indexes by rising length, in batches whose padded size stays within `batch_tokens` (or of one)."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and lengths[index] * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _progress(self, total: int) -> Any:
        from tqdm import tqdm

        return tqdm(total=total, desc="annotate", unit="text", disable=None)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _passes(words: Sequence[list[int]]) -> int:
    """Rows that a text takes in a forward pass."""
    return 1 if all(len(word) == 1 for word in words) else len(words)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _draw(row: dict[str, float], temperature: float, seed: str) -> str:
    if temperature == 0:
        return max(row, key=row.__getitem__)
    top = max(row.values())
    weights = [math.exp((value - top) / temperature) for value in row.values()]
    return random.Random(f"{seed}\0label").choices(list(row), weights)[0]


class _Gumbel:
    """A logits processor that turns greedy decoding into sampling (the Gumbel-max trick), each row by its own seed.

    `generate` draws a batch's tokens from one stream, so an answer would depend on its neighbours in the batch.
    """

    def __init__(self, seeds: Sequence[str], temperature: float) -> None:
        import torch

        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(random.Random(seed).getrandbits(63)) for seed in seeds]

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        exponential = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(exponential, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - exponential.log().to(scores.device)


class _LineWritten:
    """Stops a row once it has a line with something in it."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer = tokenizer
        self.start = start

    def __call__(self, input_ids: "torch.Tensor", scores: Any, **_: Any) -> "torch.Tensor":
        import torch

        written = self.tokenizer.batch_decode(input_ids[:, self.start :])
        return torch.tensor(["\n" in text.lstrip() for text in written], device=input_ids.device)

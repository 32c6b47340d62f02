"""A Hugging Face model that annotates: its tokenizer and weights, loaded lazily, and prompts as token ids."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from findistill.errors import UserError
from findistill.llm.config import InProcessLLM
from findistill.llm.engine import Request
from findistill.llm.prompts import Demonstration, Template
from findistill.models.causal_lm import load
from findistill.models.folder import check_folder
from findistill.models.special_tokens import mark_pattern, spaced
from findistill.models.weights import loading, locate

log = logging.getLogger(__name__)

_MARK = re.compile(r"<\|?/?[\w-]{1,40}\|?>|<<?/?[A-Z]{2,20}>>?|\[/?[A-Z_]{3,30}\]")  # of a turn, in a chat template's source
STEP_TOKENS = 48  # of each step's content: a short opinion
LINE_TOKENS = 16  # of a line's header, or of the label and what a model writes around it


def step_tokens(template: Template) -> int:
    """Maximum number of tokens of a step."""
    return template.step_tokens or STEP_TOKENS


def response_tokens(template: Template) -> int:
    """Maximum number of tokens of a response."""
    return LINE_TOKENS + template.lines * (step_tokens(template) + LINE_TOKENS)


class LanguageModel(InProcessLLM):
    """A causal or encoder-decoder model (T5), created from its settings."""

    def prompt_ids(self, requests: Sequence[Request], template: Template) -> tuple[list[list[int]], dict[str, int]]:
        """Token ids of every request's prompt. Long ones lose entire demonstrations from the front, then the text's end.

        Returns:
            The prompts, and how many demonstrations were dropped, by the id of each request that lost any.

        Raises:
            UserError: `llm.max_prompt_tokens` leaves no room for a text.
        """

        @cache  # the same demonstration recurs in many prompts
        def truncate(text: str) -> tuple[str, bool]:
            """Plain text of at most `max_text_tokens`, and whether it was truncated."""
            text = self.plain_text(text)
            ids = self.ids(text)
            if len(ids) <= template.max_text_tokens:
                return text, False
            return self.tokenizer.decode(ids[: template.max_text_tokens]), True

        def example(each: Demonstration) -> Demonstration:
            rationale = tuple(map(self.plain_text, each.rationale)) if each.rationale else each.rationale
            return replace(each, text=truncate(each.text)[0], rationale=rationale)

        most = self._longest(template)
        limit, remedy = f"llm.max_prompt_tokens={most}", "Raise it"
        if most < self.max_prompt_tokens:
            limit, remedy = f"{self.model} has room for a prompt of {most} tokens", "Choose another llm"
        prompts, dropped, truncated, shortened = [], {}, 0, 0
        for request in requests:
            examples = [example(each) for each in request.demonstrations]
            text, is_cut = truncate(request.text)
            shortened += is_cut
            ids = self._encode(template, examples, text)
            while len(ids) > most and examples:
                examples = examples[1:]
                ids = self._encode(template, examples, text)
            if len(ids) > most:
                truncated += 1
                text_ids = self.ids(text)
                room = most - (len(ids) - len(text_ids))
                if room < 1:
                    raise UserError(
                        f"{limit}: the prompt alone, without a text, takes {len(ids) - len(text_ids)} tokens.\n"
                        f"{remedy}, or shorten {template.section}.instruction."
                    )
                # A truncated text may be encoded as more tokens than it was cut to: shorten it until it fits.
                while len(ids) > most and room > 0:
                    ids = self._encode(template, examples, self.tokenizer.decode(text_ids[:room]))
                    room -= 1
            if len(examples) < len(request.demonstrations):
                dropped[request.id] = len(request.demonstrations) - len(examples)
            prompts.append(ids)
        if shortened:
            log.info("%d texts were truncated to %s=%d tokens", shortened, template.text_limit, template.max_text_tokens)
        if dropped or truncated:
            log.info(
                "prompts cut to fit (%s): %d prompts lost demonstrations, %d texts were truncated", limit, len(dropped), truncated
            )  # fmt: skip
        return prompts, dropped

    def plain_text(self, text: str) -> str:
        """The text with a space inserted into each special token and chat template mark.

        A text must not open a chat turn: whatever the tokenizer or the template would read as a mark becomes plain text.
        """
        plain = spaced(text, self._marks)
        ids = self.ids(plain)
        if self._special_ids.isdisjoint(ids):
            return plain
        return str(self.tokenizer.decode([each for each in ids if each not in self._special_ids]))  # in another Unicode form

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {str(each) for each in added if each.special or re.fullmatch(r"[<\[].+[>\]]", str(each))}
        template = self.tokenizer.chat_template
        tokens |= set(_MARK.findall(template)) if self.chat and isinstance(template, str) else set()
        return mark_pattern(tokens)

    def _longest(self, template: Template) -> int:
        """Maximum tokens of a prompt: `max_prompt_tokens`, or fewer if the model has too few positions for the response."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if not positions or self.config.is_encoder_decoder:
            return self.max_prompt_tokens
        return min(self.max_prompt_tokens, positions - response_tokens(template))

    def _encode(self, template: Template, examples: Sequence[Demonstration], text: str) -> list[int]:
        if not self.chat:
            # The next word brings its own leading space, so the prompt ends without one.
            return self.ids(template.plain(examples, text), special=True)
        messages = template.messages(examples, text)
        return self.ids(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special).input_ids

    def encode(self, texts: Sequence[str], template: Template) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids to tune the model on: each text's prompt, without demonstrations, and each label's word as continuation.

        They are those that annotation uses, so a model is tuned on exactly the prompts that it then gets.

        Raises:
            UserError: as `prompt_ids` and `check_chat_template`.
        """
        self.check_chat_template()
        prompts, _ = self.prompt_ids([Request("", text, (), (0,)) for text in texts], template)
        return prompts, self.word_ids(template, "" if self.chat else " ")

    def encode_answers(self, examples: Sequence[Demonstration], template: Template) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids to tune the model on: each text's prompt, without demonstrations, and the target response with its end token.

        Raises:
            UserError: as `encode`; or the tokenizer has no token for a character of the answers, as T5's has none for braces.
        """
        self.check_chat_template()
        prompts, _ = self.prompt_ids([Request("", each.text, (), (0,)) for each in examples], template)
        opening = "" if self.chat else template.opening  # the plain form of a prompt ends with it
        answers = [self.ids(template.completion(each).removeprefix(opening)) for each in examples]
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and any(unknown in answer for answer in answers):
            raise UserError(
                f"{self.model} cannot write these answers: its tokenizer has no token for some of their characters, such as "
                "braces. Use llm=smollm2, or another model whose tokenizer has them"
            )
        return prompts, [[*answer, self.tokenizer.eos_token_id] for answer in answers]

    def check_chat_template(self) -> None:
        """Raise UserError where `llm.chat` asks for a chat template and the model has none."""
        if self.chat and not self.tokenizer.chat_template:
            raise UserError(f"llm.chat=true, but {self.model} has no chat template. Use llm.chat=false.")

    def word_ids(self, template: Template, lead: str) -> list[list[int]]:
        """Token ids of the label words, as they follow the prompt."""
        words = [self.ids(lead + word) for word in template.words.values()]
        if len({tuple(each) for each in words}) < len(words):
            raise UserError(f"prompt.wording: {self.model} encodes two words identically: {list(template.words.values())}")
        return words

    @property
    def pad_id(self) -> int:
        """The padding token; the end-of-sequence token if the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _pretrained(self, auto: Any, **options: Any) -> Any:
        where = locate(self.model)
        check_folder(self.model, where, "language model")
        with loading(f"llm.model={self.model} cannot be loaded"):
            return auto.from_pretrained(where, trust_remote_code=False, **options)

    @cached_property
    def tokenizer(self) -> Any:
        # Clean-up would remove spaces before punctuation from truncated or generated texts.
        return self._pretrained(AutoTokenizer, clean_up_tokenization_spaces=False)

    @cached_property
    def encodes(self) -> bool:
        """Whether the model has an encoder for the prompt and a decoder for the response."""
        return bool(self.config.is_encoder_decoder)

    @cached_property
    def config(self) -> Any:
        return self._pretrained(AutoConfig)

    @cached_property
    def lm(self) -> Any:
        return load(self.model, self.dtype, self.adapter)

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens with which the model ends its response."""
        ends = self.lm.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return frozenset(each for each in (*ends, self.tokenizer.eos_token_id) if each is not None)

    def padded(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, (rows, longest) each, padded on the left."""
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[self.pad_id] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.lm.device), mask.to(self.lm.device)

"""Prompts: how a text is presented to a language model, and how a label is read from its response.

Two forms of the same prompt: `messages` for chat models and `plain` for completion. Texts are never interpreted:
prompts are joined from parts, never formatted, and a text's line breaks become spaces, so that it cannot pose as
another part of the prompt.

A response is a label, after the `steps` of the prompt: none (`direct`), an opinion (`cot`, chain of thought as in Deng et
al. 2023), clues and reasoning (`carp`, Sun et al. 2023). It is written as lines under headers, or as JSON where the
template is `structured`. A demonstration is shown as a response only if it has a rationale for the steps: one without
would teach the model to skip them, so it becomes a labelled example in the instruction instead, and the steps are requested
in words and, in the plain form, by ending the prompt with the first header.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, create_model

from findistill.data.cells import as_text
from findistill.data.labels import SENTIMENT, LabelSet
from findistill.errors import UserError
from findistill.llm import answers
from findistill.llm.config import Prompt
from findistill.llm.text import one_line, truncate

SENTENCE_TOKENS = 30  # assumed for one sentence until responses have been measured
MOST_WORDS = 8  # labels that a message lists


@dataclass(frozen=True)
class Demonstration:
    """A worked example: a labelled text, with its rationale (the content of each step) where known.

    The label is an answer as `Template.parse` returns it.
    """

    text: str
    label: str
    rationale: tuple[str, ...] | None = None

    @lru_cache(maxsize=4096)  # noqa: B019 -- the same few are in every prompt
    def truncated(self, words: int) -> "Demonstration":
        """A copy with the text on one line, cut to `words` words."""
        return replace(self, text=truncate(self.text, words)[0])


@dataclass(frozen=True)
class Template:
    """A prompt's wording. `words` maps each label's name to the word the model reads and writes.

    Engines cut texts to `max_text_tokens` before filling them in; an engine without the tokenizer counts words.
    With `known_label` the prompt names the label and asks for the steps that lead to it, to generate rationales for
    labelled demonstrations. `scoring` is how an engine in this process reads the label: from the log-probabilities of the
    label words, the `sum` or the `mean` over a word's tokens, or from generated text (`generation`), as for a server.

    Attributes:
        free: answers are free text instead of label words, read only by `parse`; see `llm.extraction`.
        section: section of the configuration, for messages; `text_limit` is its setting for the length of a text.
    """

    free: ClassVar[bool] = False
    section: ClassVar[str] = "prompt"
    text_limit: ClassVar[str] = "prompt.max_text_tokens"

    instruction: str
    words: dict[str, str]
    text_header: str = "Text:"
    answer_header: str = "Sentiment:"
    steps: tuple[str, ...] = ()
    step_hints: tuple[str, ...] = ()
    max_text_tokens: int = 128
    structured: bool = False
    known_label: str | None = None
    scoring: str = "sum"
    step_tokens: int | None = None  # maximum per step, where the engine counts them; None: the engine's default

    def __post_init__(self) -> None:
        if len({answers.canonical(word) for word in self.words.values()}) < len(self.words):
            raise UserError(f"prompt.wording: two labels share a word: {self.words}. Choose another wording.")
        keys = [answers.key(header) for header in (*self.steps, self.answer_header)]
        if len(set(keys)) < len(keys) or not all(keys):
            raise UserError(f"prompt.steps={list(self.steps)}, prompt.answer_header={self.answer_header}: headers must differ.")
        if self.step_hints and len(self.step_hints) != len(self.steps):
            raise UserError(f"prompt.step_hints has {len(self.step_hints)} entries for {len(self.steps)} prompt.steps.")

    # -- prompt ------------------------------------------------------------------------------------------------------

    def task(self) -> str:
        """The instruction, with the label words and the form of the response."""
        words = list(self.words.values())
        choice = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
        instruction = self.instruction
        if self.known_label is not None:
            word = self.words[self.known_label]
            instruction += f" The right answer for this text is known: {self.answer_header} {word}. Say what leads to it."
            choice = word
        hints = self.step_hints or ("one sentence",) * len(self.steps)
        slots = [f"<{hint}>" for hint in hints] + [f"<{choice}>"]
        if self.structured:
            return f"{instruction} Answer with one JSON object and nothing else: {self._json(slots)}"
        if not self.steps:
            unit = "label" if any(len(word.split()) > 1 for word in words) else "word"
            return f"{instruction} Answer with one {unit}: {choice}."
        count = {2: "two", 3: "three"}.get(len(slots), str(len(slots)))
        return f"{instruction} Answer in {count} lines:\n{self._lines(slots)}"

    def completion(self, demonstration: Demonstration) -> str:
        """The target response to a demonstration that `_split` counts as complete."""
        parts = [*(demonstration.rationale or ()), self.words[demonstration.label]]
        if self.structured:
            return self._json(parts)
        return self._lines(parts) if self.steps else parts[-1]

    def messages(self, demonstrations: Sequence[Demonstration], text: str) -> list[dict[str, str]]:
        """The chat form: the instruction as system message, each complete demonstration as a user and an assistant turn."""
        examples, turns = self._split(demonstrations)
        system = "\n\n".join([self.task(), *(self._example(each) for each in examples)])
        messages = [{"role": "system", "content": system}]
        for each in turns:
            messages.append({"role": "user", "content": one_line(each.text)})
            messages.append({"role": "assistant", "content": self.completion(each)})
        return [*messages, {"role": "user", "content": one_line(text)}]

    def plain(self, demonstrations: Sequence[Demonstration], text: str) -> str:
        """The completion form; it ends with the header of what the model is to write next, without a space."""
        examples, turns = self._split(demonstrations)
        blocks = [self.task(), *(self._example(each) for each in examples)]
        for each in turns:
            lead = "" if self.steps or self.structured else f"{self.answer_header} "
            blocks.append(f"{self.text_header} {one_line(each.text)}\n{lead}{self.completion(each)}")
        blocks.append(f"{self.text_header} {one_line(text)}\n{'' if self.structured else self.opening}")
        return "\n\n".join(blocks)

    @property
    def opening(self) -> str:
        """The beginning of a response, with which the plain form ends."""
        return [*self.steps, self.answer_header][0]

    @property
    def closing(self) -> str:
        """Text that completes a line of a model in this process, as a line break does; empty: none."""
        return ""

    @property
    def lines(self) -> int:
        """Number of lines of a response that the model fills freely."""
        return len(self.steps)

    @property
    def assumed_tokens(self) -> int:
        """Assumed tokens of a response before any has been seen: the label, and a sentence for each step."""
        markup = 4 * (len(self.steps) + 1) if self.structured or self.steps else 2
        return markup + SENTENCE_TOKENS * len(self.steps)

    @cached_property
    def response_model(self) -> type[BaseModel]:
        """The form of a structured response: a string for each step, then one of the label words."""
        fields: dict[str, Any] = {answers.key(step): (str, ...) for step in self.steps}
        fields[answers.key(self.answer_header)] = (Literal[tuple(self.words.values())], ...)
        return create_model("answer", __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a structured response."""
        return self.response_model.model_json_schema()

    # -- response ----------------------------------------------------------------------------------------------------

    def parse(self, response: str, *, cut: bool = False) -> str | None:
        """The name of the label in a response; None if it names none or several; see `answers`.

        Args:
            cut: the response ended at a token limit.
        """
        return self._reader.label(response, cut=cut)

    @property
    def answer(self) -> str:
        """What a response should name, for messages."""
        words = list(self.words.values())
        return f"a label ({', '.join([*words[:MOST_WORDS], *(['...'] if len(words) > MOST_WORDS else [])])})"

    @staticmethod
    def recorded(cell: Any) -> list[str]:
        """The responses in a cell of a table: a list is several samples."""
        return [as_text(each) for each in (cell if isinstance(cell, list) else [cell])]

    def rationale(self, response: str) -> tuple[str, ...] | None:
        """The content of each step of a response, without headers; None if the prompt has no steps, or a step is missing."""
        if not self.steps:
            return None
        response = answers.visible(response[: answers.LONGEST]) or ""
        fields = answers.json_object(response)[0]
        if fields is not None and answers.key(self.answer_header) in fields:
            parts = [str(fields.get(answers.key(step)) or "") for step in self.steps]
        else:
            headers = "|".join(re.escape(header) for header in (*self.steps, self.answer_header))
            pieces = re.split(f"({headers})", response, flags=re.IGNORECASE)
            after = {header.lower(): text for header, text in zip(pieces[1::2], pieces[2::2], strict=True)}
            # A completion starts after the first header, which is part of the prompt.
            parts = [after.get(step.lower(), pieces[0] if number == 0 else "") for number, step in enumerate(self.steps)]
        parts = [one_line(text) for text in parts]
        return tuple(parts) if all(parts) else None

    # -- parts -------------------------------------------------------------------------------------------------------

    @cached_property
    def _reader(self) -> answers.AnswerReader:
        return answers.AnswerReader(self.words, self.answer_header, self.steps, self.text_header)

    def _lines(self, parts: Sequence[str]) -> str:
        return "\n".join(f"{header} {part}" for header, part in zip((*self.steps, self.answer_header), parts, strict=True))

    def _json(self, parts: Sequence[str]) -> str:
        keys = [answers.key(header) for header in (*self.steps, self.answer_header)]
        return json.dumps(dict(zip(keys, parts, strict=True)), ensure_ascii=False)

    def _example(self, demonstration: Demonstration) -> str:
        return f"{self.text_header} {one_line(demonstration.text)}\n{self.answer_header} {self.words[demonstration.label]}"

    def _split(self, demonstrations: Sequence[Demonstration]) -> tuple[list[Demonstration], list[Demonstration]]:
        """Labelled examples for the instruction, and complete demonstrations for separate turns."""
        examples: list[Demonstration] = []
        turns: list[Demonstration] = []
        for each in demonstrations:
            complete = not self.steps or len(each.rationale or ()) == len(self.steps)
            (turns if complete else examples).append(each)
        return examples, turns


def template(config: Prompt, labels: LabelSet) -> Template:
    """The configured prompt for these labels, about sentiment only where they are sentiments or `prompt.task` says so.

    Raises:
        UserError: there is no instruction; `prompt.wording` is unknown, lacks a word for a label, or has one for two.
    """
    task = config.task or ("sentiment" if set(labels.names) <= set(SENTIMENT) else "category")
    of_task = config.sentiment_instruction if task == "sentiment" else config.task_instruction
    instruction = config.instruction or of_task or config.task_instruction or config.sentiment_instruction
    if not instruction:
        raise UserError(
            f"prompt={config.name} has no instruction: say what the model should do, prompt.instruction='Name the topic.'"
        )
    header = config.answer_header or f"{task[:1].upper()}{task[1:]}:"
    return Template(
        instruction.replace("{task}", task), labels.words(config.wording), config.text_header, header, tuple(config.steps),
        tuple(config.step_hints), config.max_text_tokens,
    )  # fmt: skip

"""How a text is put to a language model, and how a label is read from its answer.

Two forms of the same prompt: `messages` for chat models and `plain` for completion. Nothing of a text is interpreted:
prompts are joined from parts, never formatted, and a text's line breaks become spaces, so that it cannot pose as
another part of the prompt.

An answer is a label, after the `steps` of the prompt: none (`direct`), an opinion (`cot`, chain of thought as in Deng et
al. 2023), clues and reasoning (`carp`, Sun et al. 2023). It is written as lines under headers, or as JSON where the
template is `structured`. A demonstration shows steps only when it has a rationale of its own: one without would teach
the model to skip them, so it is shown as a labelled example in the instruction instead, and the steps are asked for in
words and, in the plain form, by ending the prompt with the first header.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.settings.schema import Prompt


@dataclass(frozen=True)
class Demonstration:
    """A worked example: a labelled text, with what each step says before the label where that is known."""

    text: str
    label: str
    rationale: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Template:
    """A prompt's wording. `words` maps each label's name to the word the model reads and writes.

    Engines cut texts to `max_text_tokens` before they fill them in; an engine without the tokenizer counts words.
    With `given` the prompt names the label and asks for the steps that lead to it: how rationales for labelled
    demonstrations are written. `scoring` is how an engine in this process reads the label: from the log-probabilities of
    the label words, a word's being the `sum` or the `mean` over its tokens, or from text that the model writes of itself
    (`generation`), as a server's answer is read.
    """

    instruction: str
    words: dict[str, str]
    text_header: str = "Text:"
    answer_header: str = "Sentiment:"
    steps: tuple[str, ...] = ()
    step_hints: tuple[str, ...] = ()
    max_text_tokens: int = 128
    structured: bool = False
    given: str | None = None
    scoring: str = "sum"
    step_tokens: int | None = None  # of each step at most, where the engine counts them; None: as the engine has it

    def __post_init__(self) -> None:
        lowered = [word.lower() for word in self.words.values()]
        if len(set(lowered)) < len(lowered):
            raise UserError(f"prompt.wording: two labels share a word: {self.words}. Choose another wording.")
        keys = [_key(header) for header in (*self.steps, self.answer_header)]
        if len(set(keys)) < len(keys) or not all(keys):
            raise UserError(f"prompt.steps={list(self.steps)}, prompt.answer_header={self.answer_header}: headers must differ.")
        if self.step_hints and len(self.step_hints) != len(self.steps):
            raise UserError(f"prompt.step_hints: {len(self.step_hints)} of them for {len(self.steps)} prompt.steps.")

    # -- asking ------------------------------------------------------------------------------------------------------

    def task(self) -> str:
        """The instruction, with the label words and the form of the answer."""
        words = list(self.words.values())
        choice = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
        asked = self.instruction
        if self.given is not None:
            word = self.words[self.given]
            asked += f" The right answer for this text is known: {self.answer_header} {word}. Say what leads to it."
            choice = word
        hints = self.step_hints or ("one sentence",) * len(self.steps)
        slots = [f"<{hint}>" for hint in hints] + [f"<{choice}>"]
        if self.structured:
            return f"{asked} Answer with one JSON object and nothing else: {self._json(slots)}"
        if not self.steps:
            return f"{asked} Answer with one word: {choice}."
        count = {2: "two", 3: "three"}.get(len(slots), str(len(slots)))
        return f"{asked} Answer in {count} lines:\n{self._lines(slots)}"

    def answer(self, demonstration: Demonstration) -> str:
        """What a model should have answered to this demonstration, one that `_parted` counts as a complete answer."""
        parts = [*(demonstration.rationale or ()), self.words[demonstration.label]]
        if self.structured:
            return self._json(parts)
        return self._lines(parts) if self.steps else parts[-1]

    def messages(self, demonstrations: Sequence[Demonstration], text: str) -> list[dict[str, str]]:
        """The chat form: the instruction as system message, each demonstration as a turn of user and assistant."""
        examples, turns = self._parted(demonstrations)
        system = "\n\n".join([self.task(), *(self._example(each) for each in examples)])
        messages = [{"role": "system", "content": system}]
        for each in turns:
            messages.append({"role": "user", "content": one_line(each.text)})
            messages.append({"role": "assistant", "content": self.answer(each)})
        return [*messages, {"role": "user", "content": one_line(text)}]

    def plain(self, demonstrations: Sequence[Demonstration], text: str) -> str:
        """The completion form; it ends with the header of what the model is to write next, without a space."""
        examples, turns = self._parted(demonstrations)
        blocks = [self.task(), *(self._example(each) for each in examples)]
        for each in turns:
            lead = "" if self.steps or self.structured else f"{self.answer_header} "
            blocks.append(f"{self.text_header} {one_line(each.text)}\n{lead}{self.answer(each)}")
        header = "" if self.structured else [*self.steps, self.answer_header][0]
        blocks.append(f"{self.text_header} {one_line(text)}\n{header}")
        return "\n\n".join(blocks)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer: a string for each step, then one of the label words."""
        from typing import Literal

        from pydantic import ConfigDict, create_model

        fields: dict[str, Any] = {_key(step): (str, ...) for step in self.steps}
        fields[_key(self.answer_header)] = (Literal[tuple(self.words.values())], ...)
        return create_model("answer", __config__=ConfigDict(extra="forbid"), **fields).model_json_schema()

    # -- reading -----------------------------------------------------------------------------------------------------

    def parse(self, answer: str) -> str | None:
        """The label's name that an answer ends on, or None where it names none or several.

        A JSON object anywhere in the answer is read by its keys. Else only the last line that is not empty counts, and
        within it what follows the answer header, if that is there. Upper and lower case, punctuation and markup around
        the word do not matter.
        """
        found = _object(answer)
        if found is not None:
            return self._named(str(found.get(_key(self.answer_header), "")))
        lines = [line for line in answer.splitlines() if line.strip()]
        if not lines or lines[-1].lstrip().startswith(("{", '"')):  # JSON that was cut short names no label
            return None
        return self._named(re.split(re.escape(self.answer_header), lines[-1], flags=re.IGNORECASE)[-1])

    def rationale(self, answer: str) -> tuple[str, ...] | None:
        """What an answer says in each step, without the headers; None where nothing is asked for or a step is missing."""
        if not self.steps:
            return None
        found = _object(answer)
        if found is not None:
            said = [str(found.get(_key(step)) or "") for step in self.steps]
        else:
            headers = "|".join(re.escape(header) for header in (*self.steps, self.answer_header))
            parts = re.split(f"({headers})", answer, flags=re.IGNORECASE)
            after = {header.lower(): text for header, text in zip(parts[1::2], parts[2::2], strict=True)}
            # A completion goes on after the first header, which stands in the prompt.
            said = [after.get(step.lower(), parts[0] if number == 0 else "") for number, step in enumerate(self.steps)]
        said = [one_line(text) for text in said]
        return tuple(said) if all(said) else None

    # -- parts -------------------------------------------------------------------------------------------------------

    def _named(self, said: str) -> str | None:
        said = said.lower()
        named = {name for name, word in self.words.items() if re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", said)}
        return named.pop() if len(named) == 1 else None

    def _lines(self, parts: Sequence[str]) -> str:
        return "\n".join(f"{header} {part}" for header, part in zip((*self.steps, self.answer_header), parts, strict=True))

    def _json(self, parts: Sequence[str]) -> str:
        keys = [_key(header) for header in (*self.steps, self.answer_header)]
        return json.dumps(dict(zip(keys, parts, strict=True)), ensure_ascii=False)

    def _example(self, demonstration: Demonstration) -> str:
        return f"{self.text_header} {one_line(demonstration.text)}\n{self.answer_header} {self.words[demonstration.label]}"

    def _parted(self, demonstrations: Sequence[Demonstration]) -> tuple[list[Demonstration], list[Demonstration]]:
        """Those shown as labelled examples, and those shown as complete answers."""
        if not self.steps:
            return [], list(demonstrations)
        complete = [each.rationale is not None and len(each.rationale) == len(self.steps) for each in demonstrations]
        return (
            [each for each, whole in zip(demonstrations, complete, strict=True) if not whole],
            [each for each, whole in zip(demonstrations, complete, strict=True) if whole],
        )


def one_line(text: str) -> str:
    """The text with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())


def template(config: Prompt, labels: LabelSet) -> Template:
    """The configured prompt for these labels.

    Raises:
        UserError: `prompt.wording` is unknown, or has no word for one of the labels.
    """
    return Template(
        instruction=config.instruction,
        words=labels.words(config.wording),
        text_header=config.text_header,
        answer_header=config.answer_header,
        steps=tuple(config.steps),
        step_hints=tuple(config.step_hints),
        max_text_tokens=config.max_text_tokens,
    )


def _key(header: str) -> str:
    """The JSON key for a header: `Opinion:` -> `opinion`."""
    return re.sub(r"\W+", "_", header.strip().rstrip(":").lower()).strip("_")


def _object(answer: str) -> dict[str, Any] | None:
    """The JSON object in an answer, whatever stands around it; None where there is none that can be read."""
    start, end = answer.find("{"), answer.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        found = json.loads(answer[start : end + 1])
    except ValueError:
        return None
    return {str(key).lower(): value for key, value in found.items()} if isinstance(found, dict) else None

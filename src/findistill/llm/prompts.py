"""How a text is put to a language model, and how a label is read from its answer.

Two forms of the same prompt: `messages` for chat models and `plain` for completion. Nothing of a text is interpreted:
prompts are joined from parts, never formatted.

With a `rationale_header` the model writes a short rationale before the label (chain of thought; Deng et al. 2023). A
demonstration shows that only when it has a rationale of its own: one without would teach the model to skip it, so it is
shown as a labelled example in the instruction instead, and the rationale is asked for in words and, in the plain form,
by ending the prompt with the header.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.settings.schema import Prompt


@dataclass(frozen=True)
class Demonstration:
    """A worked example: a labelled text, with the rationale that leads to the label where there is one."""

    text: str
    label: str
    rationale: str | None = None


@dataclass(frozen=True)
class Template:
    """A prompt's wording. `words` maps each label's name to the word the model reads and writes.

    Engines cut texts to `max_text_tokens` before they fill them in; an engine without the tokenizer counts words.
    """

    instruction: str
    words: dict[str, str]
    text_header: str = "Text:"
    answer_header: str = "Sentiment:"
    rationale_header: str | None = None
    max_text_tokens: int = 128

    def __post_init__(self) -> None:
        lowered = [word.lower() for word in self.words.values()]
        if len(set(lowered)) < len(lowered):
            raise UserError(f"prompt.wording: two labels share a word: {self.words}. Choose another wording.")

    def task(self) -> str:
        """The instruction, with the label words and the form of the answer."""
        words = list(self.words.values())
        choice = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
        if self.rationale_header is None:
            return f"{self.instruction} Answer with one word: {choice}."
        form = f"{self.rationale_header} <one sentence>\n{self.answer_header} <{choice}>"
        return f"{self.instruction} Answer in two lines:\n{form}"

    def answer(self, demonstration: Demonstration) -> str:
        """What a model should have answered to this demonstration."""
        word = self.words[demonstration.label]
        if self.rationale_header is None:
            return word
        return f"{self.rationale_header} {demonstration.rationale}\n{self.answer_header} {word}"

    def messages(self, demonstrations: Sequence[Demonstration], text: str) -> list[dict[str, str]]:
        """The chat form: the instruction as system message, each demonstration as a turn of user and assistant."""
        examples, turns = self._parted(demonstrations)
        system = "\n\n".join([self.task(), *(self._example(each) for each in examples)])
        messages = [{"role": "system", "content": system}]
        for each in turns:
            messages.append({"role": "user", "content": each.text})
            messages.append({"role": "assistant", "content": self.answer(each)})
        return [*messages, {"role": "user", "content": text}]

    def plain(self, demonstrations: Sequence[Demonstration], text: str) -> str:
        """The completion form; it ends with the header of what the model is to write next, without a space."""
        examples, turns = self._parted(demonstrations)
        blocks = [self.task(), *(self._example(each) for each in examples)]
        for each in turns:
            lead = "" if self.rationale_header else f"{self.answer_header} "
            blocks.append(f"{self.text_header} {each.text}\n{lead}{self.answer(each)}")
        blocks.append(f"{self.text_header} {text}\n{self.rationale_header or self.answer_header}")
        return "\n\n".join(blocks)

    def parse(self, answer: str) -> str | None:
        """The label's name that an answer ends on, or None where it names none or several.

        Only the last line that is not empty counts, and within it what follows the answer header, if that is there.
        Upper and lower case, punctuation and markup around the word do not matter.
        """
        lines = [line for line in answer.lower().splitlines() if line.strip()]
        if not lines:
            return None
        said = lines[-1].rsplit(self.answer_header.lower(), 1)[-1]
        named = {name for name, word in self.words.items() if re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", said)}
        return named.pop() if len(named) == 1 else None

    def rationale(self, answer: str) -> str | None:
        """What an answer says before its label, without the header; None where nothing is asked for or said."""
        if self.rationale_header is None:
            return None
        before = re.split(re.escape(self.answer_header), answer, maxsplit=1, flags=re.IGNORECASE)[0]
        said = re.sub(rf"^\s*{re.escape(self.rationale_header)}", "", before, flags=re.IGNORECASE)
        return " ".join(said.split()) or None

    def _example(self, demonstration: Demonstration) -> str:
        return f"{self.text_header} {demonstration.text}\n{self.answer_header} {self.words[demonstration.label]}"

    def _parted(self, demonstrations: Sequence[Demonstration]) -> tuple[list[Demonstration], list[Demonstration]]:
        """Those shown as labelled examples, and those shown as complete answers."""
        if self.rationale_header is None:
            return [], list(demonstrations)
        turns = [each for each in demonstrations if each.rationale]
        return [each for each in demonstrations if not each.rationale], turns


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
        rationale_header=config.rationale_header,
        max_text_tokens=config.max_text_tokens,
    )

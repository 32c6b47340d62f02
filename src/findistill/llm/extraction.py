"""Extraction: a prompt for the entities that a text names, and how its responses are read.

An answer is a JSON object. For one type of entity it has `result`, the names as the text spells them, and, with `normalized`,
`normalized_result`, a usual name for each; for several types it has one list per type. `Template.parse` returns an answer in
canonical form: equal answers are equal strings, which engines, retries, the cache and early stopping rely on. Mentions are
located in the text when the votes are counted (`Extraction.extract`), from the raw response.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, create_model

from findistill.data.cells import as_text, is_missing
from findistill.data.spans import Span, from_cell, locate_typed
from findistill.errors import UserError
from findistill.llm import answers, mentions, tagged
from findistill.llm.config import Extract
from findistill.llm.entity_types import EntityTypes, word
from findistill.llm.prompts import Demonstration, Template
from findistill.llm.text import one_line

RESULT, NORMALIZED = "result", "normalized_result"
LINE_TOKENS = 112  # maximum for a response of a model in this process
MENTION_TOKENS = 8  # assumed for each of two names in a headline


@dataclass(frozen=True)
class Extracted:
    """What one response says about its text.

    Attributes:
        spans: the mentions, in order.
        normalized: surface form -> usual name.
        missing: forms that do not occur in the text.
        repeated: forms that occur more than once; each occurrence is a span.
        unmatched: whether there were more or fewer normalised names than forms.
        other: types or tags that are not among the data's labels.
        tokens, aligned: of an answer of tokens and tags, the number of tokens, and of those found in the text.
    """

    spans: list[Span]
    normalized: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    repeated: Sequence[str] = ()
    unmatched: bool = False
    other: Sequence[str] = ()
    tokens: int = 0
    aligned: int = 0


@dataclass(frozen=True)
class Extraction(Template):
    """The wording of a prompt that requests entities; `words` are the types of entity.

    `examples` are worked examples in the instruction, before the demonstrations.
    """

    free: ClassVar[bool] = True
    section: ClassVar[str] = "extract"
    text_limit: ClassVar[str] = "extract.max_text_tokens"

    examples: tuple[Demonstration, ...] = ()
    normalized: bool = False
    label_map: tuple[tuple[str, str], ...] = ()

    # -- prompt ------------------------------------------------------------------------------------------------------

    def task(self) -> str:
        examples = (f"{self.text_header} {one_line(each.text)}\n{self.completion(each)}" for each in self.examples)
        return "\n\n".join([f"{self.instruction} {self._form()}", *examples])

    def _form(self) -> str:
        """How to answer, in words."""
        lists = f"Answer with one JSON object and nothing else: {self._json([['...']] * len(self._keys))}."
        spelt = "Copy every name exactly as the text spells it, once, in the order of the text"
        if self.normalized:
            return (
                f"{lists} {spelt}, into {RESULT}; at the same place of {NORMALIZED} write the entity's usual name. Both lists "
                "are equally long, and both are empty where the text names none."
            )
        return f"{lists} {spelt}. A list is empty where the text names none."

    def completion(self, demonstration: Demonstration) -> str:
        answer = [mentions.Mention(*each) for each in json.loads(demonstration.label)]
        if len(self.words) > 1:
            return self._json([[each.form for each in answer if each.label == label] for label in self.words])
        lists = [[each.form for each in answer], [each.normalized or each.form for each in answer]]
        return self._json(lists[: len(self._keys)])

    @property
    def opening(self) -> str:
        return f'{{"{self._keys[0]}":'

    @property
    def closing(self) -> str:
        return "}"

    @property
    def lines(self) -> int:
        return 1

    @property
    def assumed_tokens(self) -> int:
        return (6 + 2 * MENTION_TOKENS) * len(self._keys)

    @cached_property
    def response_model(self) -> type[BaseModel]:
        """The form of a structured response: a list of strings under each key."""
        fields: dict[str, Any] = dict.fromkeys(self._keys, (list[str], ...))
        return create_model("answer", __config__=ConfigDict(extra="forbid"), **fields)

    # -- response ----------------------------------------------------------------------------------------------------

    def parse(self, response: str, *, cut: bool = False) -> str | None:
        """The response's mentions in canonical form, a JSON list of [form, label]; None if it cannot be read.

        Tokens and tags are taken as they are, since they cannot be aligned without the text.
        """
        reading = self._read(response, cut)
        if isinstance(reading, mentions.Mentions):
            return canonical({(each.form, each.label) for each in reading.mentions})
        if reading is None:
            return None
        tokens = zip(reading.tokens, reading.tags, strict=True)
        return canonical((token, f"{tag.prefix}-{tag.label}") for token, tag in tokens if tag.label)

    def rationale(self, response: str) -> None:
        return None

    def extract(self, response: str, text: str, *, cut: bool = False) -> Extracted | None:
        """The mentions of a response in its text; None if it cannot be read.

        An answer of tokens and tags is also unreadable if fewer than half of its tokens are in the text: it is about
        something else.
        """
        reading = self._read(response, cut)
        if isinstance(reading, mentions.Mentions):
            located = locate_typed(text, [(each.form, each.label) for each in reading.mentions])
            normalized = {each.form: each.normalized for each in reading.mentions if each.normalized}
            return Extracted(located.spans, normalized, located.missing, located.repeated, reading.unmatched, reading.other)
        if reading is None:
            return None
        aligned = tagged.align(reading, text)
        if aligned.aligned < tagged.READABLE * aligned.tokens:
            return None
        return Extracted(aligned.spans, missing=aligned.lost, other=reading.other, tokens=aligned.tokens, aligned=aligned.aligned)

    @property
    def answer(self) -> str:
        return f"entities as JSON ({', '.join(self.words.values())})"

    @staticmethod
    def recorded(cell: Any) -> list[str]:
        """The responses in a cell: a list of names, or an object, is one; a list of JSON texts is several samples."""
        if not isinstance(cell, list):
            return [json.dumps(cell, ensure_ascii=False) if isinstance(cell, Mapping) else as_text(cell)]
        texts = [each for each in cell if isinstance(each, str) and each.lstrip()[:1] in ("{", "[")]
        if texts and len(texts) == len(cell):
            return texts
        return [json.dumps([None if is_missing(each) else each for each in cell], ensure_ascii=False)]

    # -- parts -------------------------------------------------------------------------------------------------------

    @cached_property
    def types(self) -> EntityTypes:
        return EntityTypes(self.words, dict(self.label_map))

    def _read(self, response: str, cut: bool) -> mentions.Mentions | tagged.Tokens | None:
        """Read a response as JSON, else as tokens and tags, else as lines; a truncated one only as JSON."""
        listed = mentions.read(response, self.types, self.text_header, cut=cut)
        if listed is not None or cut:
            return listed
        return tagged.read(response, self.types) or mentions.read_lines(response, self.types)

    @cached_property
    def _keys(self) -> list[str]:
        if len(self.words) > 1:
            return [answers.key(word) for word in self.words.values()]
        return [RESULT, NORMALIZED] if self.normalized else [RESULT]

    def _json(self, lists: Sequence[Sequence[str]]) -> str:
        return json.dumps(dict(zip(self._keys, lists, strict=True)), ensure_ascii=False)


def canonical(pairs: Any) -> str:
    """Mentions as a string; equal mentions give equal strings."""
    return json.dumps(sorted(pairs), ensure_ascii=False)


def template(config: Extract, types: Sequence[str]) -> Extraction:
    """The configured prompt for these types of entity, the data's labels.

    Raises:
        UserError: `extract.wording` or `extract.label_map` names an unknown type, two types share a word, or there are
            worked examples, which are for one type, and several types.
    """
    wording = dict(config.wording or {})
    if unknown := [label for label in wording if label not in types]:
        raise UserError(f"extract.wording: {unknown[0]} is not one of the data's labels, {', '.join(types)}")
    words = {label: str(wording.get(label, word(label))) for label in types}
    single = len(words) == 1
    if config.examples and not single:
        raise UserError(
            f"extract={config.name} supports only one entity type, but data.labels has {', '.join(words)}: use extract=entities, "
            f"or one of the types, 'data.labels=[{next(iter(words))}]'"
        )
    names = list(words.values())
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    examples = tuple(_example(config.name, number, each, types[0]) for number, each in enumerate(config.examples, 1))
    label_map = tuple((str(name), str(label)) for name, label in (config.label_map or {}).items())
    if unknown := [label for _, label in label_map if label not in types]:
        raise UserError(f"extract.label_map: {unknown[0]} is not one of the data's labels, {', '.join(types)}")
    return Extraction(
        config.instruction.replace("{types}", listed), words, config.text_header, max_text_tokens=config.max_text_tokens,
        step_tokens=LINE_TOKENS, examples=examples, normalized=config.normalized and single,
        label_map=label_map,
    )  # fmt: skip


def _example(name: str, number: int, example: Mapping[str, Any], label: str) -> Demonstration:
    """A worked example from the configuration.

    Raises:
        UserError: it lacks a text or a result, its lists differ in length, or a name does not occur in its text.
    """
    text, forms = example.get("text"), example.get(RESULT)
    usual = forms if example.get(NORMALIZED) is None else example[NORMALIZED]
    if not text or forms is None or usual is None or len(forms) != len(usual):
        raise UserError(
            f"extract.examples of extract={name}, number {number}: needs text, result and normalized_result, two lists of "
            "equal length"
        )
    if missing := [form for form in forms if form not in text]:
        raise UserError(f"extract.examples of extract={name}, number {number}: {missing[0]!r} does not occur in its text")
    return Demonstration(str(text), json.dumps([[form, label, other] for form, other in zip(forms, usual, strict=True)]))


def demonstration_label(text: str, cell: Any) -> str:
    """The answer of a labelled row: its mentions in order, each form once."""
    spans = sorted(from_cell(cell))
    pairs = dict.fromkeys((text[span.start : span.end], span.label) for span in spans)
    return json.dumps([[form, label, None] for form, label in pairs], ensure_ascii=False)

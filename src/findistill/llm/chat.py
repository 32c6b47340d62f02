"""OpenAI's chat protocol: the body of a request, and what a choice of the reply holds."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from math import exp
from typing import Any

from pydantic import ValidationError

from findistill.llm.config import EndpointLLM
from findistill.llm.prompts import Template
from findistill.llm.server import Reply

OPTIONAL = ("logprobs", "response_format", "n", "seed", "temperature")  # the first to be omitted comes first

# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass
class BodyBuilder:
    """Bodies of calls to one model; fields of `llm.extra_body` are put over all others."""

    settings: EndpointLLM
    unsupported: set[str] = field(default_factory=set)  # fields that the server does not take at all

    def body(self, **fields: Any) -> dict[str, Any]:
        """The body with these fields, without those that are None or that the server refused."""
        # OpenAI renamed it for newer models.
        limit = "max_completion_tokens" if "max_tokens" in self.unsupported else "max_tokens"
        fields = {"model": self.settings.model, limit: self.settings.max_tokens, **fields}
        fields = {name: value for name, value in fields.items() if value is not None and name not in self.unsupported}
        return fields | dict(self.settings.extra_body or {})

    def omit_unsupported(self, refusal: str, body: Collection[str]) -> bool:
        """Omit a field from now on: the one that the refusal names, else the most dispensable. False: none is left."""
        names = set(body) - set(self.settings.extra_body or {})
        optional = [name for name in OPTIONAL if name in names]
        if "max_completion_tokens" in refusal and "max_tokens" in names:
            optional = ["max_tokens"]
        named = [name for name in optional if re.search(rf"\b{name}\b", refusal)]
        self.unsupported.update((named or optional)[:1])
        return bool(optional)


def request_seed(*parts: object) -> int:
    """A number that depends on the request alone, not on when it is sent: 31 bits, which every server takes."""
    return int.from_bytes(blake2b(repr(parts).encode(errors="backslashreplace"), digest_size=4).digest(), "big") >> 1


def response_format(template: Template) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "response", "strict": True, "schema": template.schema}}


# -- replies -----------------------------------------------------------------------------------------------------------


def content(choice: Mapping[str, Any]) -> str:
    text = choice["message"].get("content")
    # Half a surrogate pair is valid in JSON, and cannot be written to a file.
    return text.encode(errors="replace").decode() if isinstance(text, str) else ""


def contents(replies: Iterable[Reply]) -> set[str]:
    """The different texts of all choices."""
    return {content(choice) for reply in replies for choice in reply.choices}


def matches_schema(text: str, template: Template) -> bool:
    """Whether the text is one JSON object of the template's schema: its keys, strings, and one of the label words."""
    try:
        template.response_model.model_validate_json(text, strict=True)
    except ValidationError:
        return False
    return True


def log_probabilities(choice: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The tokens of a choice with their log-probabilities; none where the server gives none, or not as the protocol has it."""
    try:
        return [(str(each["token"]), float(each["logprob"])) for each in choice["logprobs"]["content"]]
    except (TypeError, KeyError, ValueError):
        return []


def confidence(tokens: list[tuple[str, float]], word: str) -> float | None:
    """The probability of the tokens that write the word where it stands last; None where they do not write it."""
    word = word.lower()
    parts = [token.lower() for token, _ in tokens]
    start = "".join(parts).rfind(word)
    if start < 0:
        return None
    place, total = 0, 0.0
    for token, (_, log_probability) in zip(parts, tokens, strict=True):
        if place < start + len(word) and place + len(token) > start:
            total += log_probability
        place += len(token)
    return exp(min(total, 0.0))

"""OpenAI's chat protocol: request bodies, and the content of a reply's choices."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import exp
from typing import Any

from pydantic import ValidationError

from findistill.errors import UserError
from findistill.llm.config import EndpointLLM
from findistill.llm.prompts import Template
from findistill.llm.refusals import SYSTEM
from findistill.llm.replies import Reply

OPTIONAL = ("logprobs", "response_format", "n", "seed", "temperature")  # in the order in which they are omitted
LIMITS = ("max_tokens", "max_completion_tokens")  # OpenAI renamed it for newer models
_TOO_LARGE = re.compile(r"too (large|high|big)|at most|exceed|greater than|less than|maximum", re.IGNORECASE)

# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass
class BodyBuilder:
    """Request bodies for one model; fields of `llm.extra_body` override all others."""

    settings: EndpointLLM
    unsupported: set[str] = field(default_factory=set)  # fields, or `refusals.SYSTEM`, that the server does not accept at all

    def body(self, without: Collection[str] = (), **fields: Any) -> dict[str, Any]:
        """The body with these fields, except those that are None, that the server refused, or that are in `without`."""
        unsupported = {*self.unsupported, *without}
        limit = next((name for name in LIMITS if name not in unsupported), None)
        limits = {limit: self.settings.max_tokens} if limit else {}
        fields = {"model": self.settings.model, **limits, **fields}
        fields = {name: value for name, value in fields.items() if value is not None and name not in unsupported}
        if SYSTEM in unsupported:
            fields["messages"] = without_system(fields["messages"])
        return fields | dict(self.settings.extra_body or {})

    def omit(self, names: Iterable[str], refusal: object) -> None:
        """Omit these from all bodies from now on.

        Raises:
            UserError: it is the token limit, which is too large for the model.
        """
        names = set(names)
        if names & {*LIMITS} and _TOO_LARGE.search(str(refusal)):
            raise UserError(
                f"llm.max_tokens={self.settings.max_tokens} exceeds the limit of llm.model={self.settings.model}: {refusal}\n"
                f"Lower it: llm.max_tokens={max(1, self.settings.max_tokens // 2)}"
            )
        self.unsupported |= names

    def next_optional(self, body: Collection[str]) -> str | None:
        """The most dispensable field of a body; None if none is left."""
        return next((name for name in OPTIONAL if name in body and name not in (self.settings.extra_body or {})), None)


def without_system(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The messages with the system message prepended to the first user message, for models without that role."""
    if messages[0]["role"] != "system":
        return list(messages)
    system, first, *others = messages
    return [first | {"content": f"{system['content']}\n\n{first['content']}"}, *others]


def request_seed(*parts: object) -> int:
    """A seed that depends only on the request, not on when it is sent: 31 bits, which every server accepts."""
    return int.from_bytes(blake2b(repr(parts).encode(errors="backslashreplace"), digest_size=4).digest(), "big") >> 1


def response_format(template: Template) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "response", "strict": True, "schema": template.schema}}


# -- replies -----------------------------------------------------------------------------------------------------------


def contents(replies: Iterable[Reply]) -> set[str]:
    """The distinct texts of all choices."""
    return {choice.text for reply in replies for choice in reply.choices}


def matches_schema(text: str, template: Template) -> bool:
    """Whether the text is one JSON object that follows the template's schema."""
    try:
        template.response_model.model_validate_json(text, strict=True)
    except ValidationError:
        return False
    return True


def confidence(tokens: Sequence[tuple[str, float]], word: str) -> float | None:
    """The probability of the tokens that spell the last occurrence of the word; None if it does not occur."""
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

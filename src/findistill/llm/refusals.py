"""What a server's refusal is about, whatever its status and form: a parameter of the request, its text, or neither.

Servers report it as `error.param`, as `detail[].loc`, in words under a dozen keys, or as plain text. What they quote from
the request (`input`) is ignored: a text may mention temperatures.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from findistill.llm.text import read_json

SYSTEM = "system"  # the role of that message, treated as a parameter
MOST_PARTS = 200  # values of a refusal that are examined
LONGEST = 4000  # characters of it

_WORDS = ("error", "message", "msg", "detail", "details", "errors", "title", "reason", "description", "error_description", "raw")
_POINTERS = ("param", "parameter", "loc", "field", "path", "property", "argument")
_CODES = ("code", "status", "type", "error_type", "innererror", "object", "metadata")
_SPELLINGS = {
    "logprobs": r"log[ _-]?prob(?:s|abilit)\w*",
    "response_format": r"response[ _]?format|json[ _]?schema|structured[ _]outputs?",
    "n": r"[\"'`]n[\"'`]|\bn\s*(?:=|>|≤|<)|\bn (?:must|is|should|can|greater|has)\b|\bparameter:? n\b"
    r"|multiple (?:choices|completions)",
    "seed": r"(?<!\w)seed(?!\w)",
    "temperature": r"temperature",
    "max_tokens": r"(?<!\w)max_(?:completion_)?tokens",
    "max_completion_tokens": r"max_completion_tokens",
}
_NO_SYSTEM = re.compile(
    r"system.{0,30}(?:role|message|prompt|instruction)|role.{0,60}\bsystem\b|roles? must|only user and assistant"
    r"|messages\S*\.role|developer instruction|template ?error.{0,80}role",
    re.IGNORECASE | re.DOTALL,
)
_UNSUITABLE = re.compile(
    r"support|unknown|unrecogni|invalid|allowed|permitted|unexpected|extra|forbid|\bonly\b|must|does not|do not|cannot|can't|"
    r"deprecated|not available|implement|disabled|denied|exception|template|not enabled|roles",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|(prompt|input|message)\w*.{0,30} too long|too many (input |prompt )?tokens|exceed_context"
    r"|inputs? (tokens|must have less).{0,60}|string_above_max_length|reduce the length",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"content[ _-]?(filter|polic|manag|moderat|safety)|(usage|safety) polic|moderation|flagged|responsible ?ai|data_inspection|"
    r"inappropriate|prohibited|harmful|unsafe",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Refusal:
    """A refusal's message, the fields that it points to (`messages.0.role`), and its kinds (`insufficient_quota`)."""

    message: str
    pointers: tuple[str, ...] = ()
    code: int | None = None  # the status that the body itself gives
    kinds: tuple[str, ...] = ()

    @property
    def about_text(self) -> bool:
        """Whether it concerns this one text: against a policy, or too long for the model."""
        return bool(TOO_LONG.search(self.message) or _POLICY.search(self.message))

    def parameter(self, sent: Collection[str], *, plain: bool) -> str | None:
        """The parameter among those `sent` that it names first.

        Args:
            plain: the status itself says that the request is wrong (400, 422), so that naming a parameter is enough.
        """
        for pointer in self.pointers:
            parts = re.split(r"[^\w]+", pointer)
            if name := next((part for part in reversed(parts) if part in _SPELLINGS and part in sent), None):
                return name
            if "messages" in parts and "role" in parts and SYSTEM in sent:
                return SYSTEM
        if not (plain or _UNSUITABLE.search(self.message)):
            return None
        if SYSTEM in sent and _NO_SYSTEM.search(self.message):
            return SYSTEM
        named = {name: re.search(spelling, self.message, re.IGNORECASE) for name, spelling in _SPELLINGS.items() if name in sent}
        places = {name: match.start() for name, match in named.items() if match}
        return min(places, key=places.__getitem__, default=None)


def read(body: bytes | Any) -> Refusal:
    """Parse a refusal from a response body of any form."""
    value = read_json(body) if isinstance(body, bytes) else body
    if not isinstance(value, dict | list):
        return Refusal(value if isinstance(value, str) else body[:LONGEST].decode(errors="replace"))
    words: list[str] = []
    pointers: list[str] = []
    codes: list[str] = []
    for key, text in _parts(value):
        if key in _POINTERS:
            pointers.append(text)
        elif key in _WORDS or key == "":
            words.append(text)
        elif key in _CODES:
            codes.append(text)
    numbers = [int(code) for code in codes if re.fullmatch("[45]\\d\\d", code)]
    kinds = [code for code in codes if not code.isdigit() and code not in ("error", "None")]
    message = ": ".join([*dict.fromkeys(words)][:8]) or " ".join(kinds)
    if any(_POLICY.search(kind) or TOO_LONG.search(kind) for kind in kinds) and not _POLICY.search(message):
        message += f" ({', '.join(dict.fromkeys(kinds))})"
    located = message + "".join(f" ({pointer})" for pointer in dict.fromkeys(pointers) if pointer not in message)
    return Refusal(located[:LONGEST], tuple(pointers), numbers[0] if numbers else None, tuple(kinds))


def _parts(value: Any) -> Iterator[tuple[str, str]]:
    """Keys and texts of a refusal, outer ones first; pointers given as lists are joined by dots."""
    names = {*_WORDS, *_POINTERS, *_CODES}
    queue: list[tuple[str, Any]] = [("", value)]
    for key, part in queue:  # it grows meanwhile
        if key in _POINTERS and isinstance(part, list):
            yield key, ".".join(str(each)[:60] for each in part[:10])
        elif isinstance(part, dict):
            queue += [(str(name).lower(), each) for name, each in part.items() if str(name).lower() in names][:MOST_PARTS]
        elif isinstance(part, list):
            queue += [(key, each) for each in part[:MOST_PARTS]]
        elif isinstance(part, str) or (isinstance(part, int) and abs(part) < 1000):
            yield key, str(part)[:LONGEST]
        if len(queue) > MOST_PARTS:
            del queue[MOST_PARTS:]

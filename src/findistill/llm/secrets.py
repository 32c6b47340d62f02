"""Mask a secret in whatever a server sends back: verbatim, quoted, escaped, in hex or in base64."""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 4  # masking shorter ones would damage words
SHORTEST_IN_ANSWERS = 8  # and not letters alone, which may be a label
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def _forms(secret: str) -> set[str]:
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return {secret, *quoted, json.dumps(secret)[1:-1], html.escape(secret), secret.encode().hex()}


def _base64_forms(secret: str) -> Iterator[str]:
    """The base64 of the secret inside any longer text: one form for each alignment to groups of three bytes."""
    for lead, skipped in ((0, 0), (1, 2), (2, 3)):
        packed = b64encode(b"\0" * lead + secret.encode()).decode()
        middle = packed.rstrip("=")[skipped : -1 if packed.endswith("=") else None]
        if len(middle) >= SHORTEST_IN_ANSWERS:
            yield from (middle, middle.replace("+", "-").replace("/", "_"))


class Redactor:
    """Masks one secret, in messages (`mask`) and in answers (`mask_answer`), where one that could be a word is left alone."""

    def __init__(self, secret: str) -> None:
        forms = {re.escape(form) for form in _forms(secret)} if len(secret) >= SHORTEST else set()
        forms |= {rf"{re.escape(form)}[\w+/-]*={{0,2}}" for form in _base64_forms(secret)}
        self._pattern = re.compile("|".join(sorted(forms, key=len, reverse=True)) or "$^", re.IGNORECASE)
        self._in_answers = bool(forms) and len(secret) >= SHORTEST_IN_ANSWERS and not secret.isalpha()

    def mask(self, text: str) -> str:
        """A message without the secret; JSON escapes that could hide it are decoded first."""
        return self._pattern.sub(MASK, _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), text))

    def mask_answer(self, text: str) -> str:
        """A model's answer without the secret."""
        return self._pattern.sub(MASK, text) if self._in_answers else text

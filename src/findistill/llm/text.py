"""Texts in prompts and responses: on one line, cut to a number of words, without control characters, read as JSON."""

import json
import re
from typing import Any

CHARACTERS = 12  # per word, on average over a text: no language has longer ones, but one "word" may have 100,000 characters

# Complete terminal escape sequences; then single control characters and marks that change the writing direction.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|\x1b[ -/]{0,8}[0-~]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text with every run of white space, including line breaks, replaced by one space."""
    return " ".join(text.split())


def truncate(text: str, words: int) -> tuple[str, bool]:
    """The text on one line, cut to `words` words and proportionally many characters, and whether that shortened it.

    For models whose tokenizer is not available: a word is at least one token.
    """
    whole = one_line(text)
    short = " ".join(whole[: words * CHARACTERS].split(" ")[:words])
    return short, len(short) < len(whole)


def without_controls(text: str) -> str:
    """The text without escape sequences and control characters, with lone surrogates as `?`; line breaks are kept."""
    if text.isascii() and text.isprintable():  # most responses
        return text
    text = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def read_json(text: str | bytes) -> Any:
    """The value of the text as JSON; None if it cannot be parsed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a server may send an object nested thousands of levels deep
        return None

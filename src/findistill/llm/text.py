"""Texts in prompts and responses: on one line, cut to a number of words, without control characters, read as JSON."""

import json
import re
from typing import Any

CHARACTERS = 12  # a word, on average over a text: longer is no language, and a word of 100,000 characters is one word

# Sequences that a terminal would obey, whole; then single control characters and marks that turn the direction of writing.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)|\x1b[ -/]{0,8}[0-~]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())


def truncate(text: str, words: int) -> tuple[str, bool]:
    """The text on one line, up to so many words and characters in proportion, and whether that shortened it.

    For models whose tokenizer is not at hand: a word is at least one token.
    """
    whole = one_line(text)
    short = " ".join(whole[: words * CHARACTERS].split(" ")[:words])
    return short, len(short) < len(whole)


def without_controls(text: str) -> str:
    """The text without what a terminal or a spreadsheet could obey, and with halves of surrogate pairs as `?`; lines stay."""
    if text.isascii() and text.isprintable():  # most responses
        return text
    text = text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def read_json(text: str | bytes) -> Any:
    """The value that the text is in JSON; None where it cannot be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a server may send an object nested thousands of levels deep
        return None

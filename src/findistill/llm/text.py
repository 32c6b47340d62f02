"""Texts in prompts and responses: on one line, cut to a number of words, read as JSON."""

import json
from typing import Any

CHARACTERS = 12  # a word, on average over a text: longer is no language, and a word of 100,000 characters is one word


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


def read_json(text: str | bytes) -> Any:
    """The value that the text is in JSON; None where it cannot be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a server may send an object nested thousands of levels deep
        return None

"""When two texts count as the same one."""

import re

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_GAP = re.compile(r"[\W_]+")  # not [^a-z0-9]: that would make all texts in Chinese the same one
_MOJIBAKE = re.compile("â€.?")  # dashes, quotes and ellipses whose UTF-8 was read as cp1252, as posts often have them


def normalise(text: str) -> str:
    """Lower-case, URLs removed, every run of non-alphanumeric characters (of any script) replaced by one space."""
    return _GAP.sub(" ", _MOJIBAKE.sub(" ", _URL.sub(" ", text.lower()))).strip()


def duplicate_key(text: str) -> str:
    """Equal for texts that count as duplicates. A text of symbols alone (emoji) stands for itself."""
    return normalise(text) or text.strip()

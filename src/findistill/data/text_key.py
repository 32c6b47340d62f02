"""When two texts count as the same: for duplicates, test overlap, leaks and demonstrations alike."""

import re
import unicodedata

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MOJIBAKE = re.compile("â€.?")  # dashes, quotes and ellipses whose UTF-8 was read as cp1252, as posts often have them
_MARKS = re.compile("[©®™\ufffd]")  # meaningless, though Unicode counts them as symbols
_MINUS = str.maketrans("−﹣－", "---")
_GAP = re.compile(r"[\W_]+")  # in any script: [^a-z0-9] would make all Chinese texts the same
# The sign of a number: "+5", "-$5", "AAPL-3%", "< 5"; but neither "2016-2019" nor " - 5 ".
_SIGN = re.compile(r"(?:\+|(?<!\d)-)(?=(?:[^\w\s]\s?)?\d)|[<>](?==?\s?(?:[^\w\s]\s?)?\d)")
_FACE = re.compile(r"(?<![\w:;=])[:;=]'?-?[()](?![\w()])")  # emoji in ASCII: ":)", ":-("
_LOOK = re.compile("[\ufe00-\ufe0f]")  # variation selectors: an emoji in black and white, or in colours


def text_key(text: str) -> str:
    """A key that is equal for texts that count as the same.

    Case, white space, Unicode form, links and punctuation do not count. Letters and digits of any script, the sign of a
    number, emoji and symbols (↑, ≥, €) do. A text of only punctuation is its own key.
    """
    plain = _MOJIBAKE.sub(" ", _URL.sub(" ", text))
    plain = unicodedata.normalize("NFKC", _LOOK.sub("", _MARKS.sub("", plain)).translate(_MINUS)).casefold()
    plain = _FACE.sub(lambda face: "🙁" if face.group().endswith("(") else "🙂", plain)
    plain = unicodedata.normalize("NFKC", plain)  # casefolding may decompose a letter
    signs = {match.start() for match in _SIGN.finditer(plain)}

    def gap(match: re.Match[str]) -> str:
        """What counts among the characters between two words."""
        if match.group() == " ":
            return " "
        text = ""
        for at, character in enumerate(match.group(), match.start()):
            kind = unicodedata.category(character)
            if at in signs:
                text += f" {character}"
            elif kind in ("So", "Sk", "Sm", "Sc") and not character.isascii():  # emoji, arrows, skin tones, currencies
                text += f" {character} "
            else:  # accents and vowel signs belong to the letter before them
                text += character if kind in ("Mn", "Mc") else " "
        return text

    words = " ".join(_GAP.sub(gap, plain).split())
    return re.sub("(?<=[+-]) ", "", words) or text.strip()

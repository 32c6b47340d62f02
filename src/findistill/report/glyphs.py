"""Text in figures: what the fonts of this machine can draw, and what replaces the rest.

matplotlib would draw boxes, and warn about every character of every label.
"""

import logging
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)

FAMILIES = (  # tried in this order for each character, if they are installed
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans CJK JP", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Hiragino Sans GB", "Heiti TC", "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Segoe UI Emoji",
)  # fmt: skip
ABSENT = "\N{WHITE SQUARE}"  # replaces a character that no font has
WIDEST = 26  # characters of a label


@cache
def families() -> list[str]:
    """The font families of figures: those of `FAMILIES` that are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FAMILIES if name in installed]


@cache
def _faces() -> list[FT2Font]:
    return [FT2Font(font_manager.findfont(name)) for name in families()]


@cache
def _has_glyph(character: str) -> bool:
    return character == "\n" or any(face.get_char_index(ord(character)) for face in _faces())


def drawable(text: str) -> str:
    """The text with a square for each character that cannot be drawn."""
    return "".join(character if _has_glyph(character) else ABSENT for character in text)


def label_names(labels: Sequence[str]) -> list[str]:
    """These labels as written in figures: shortened, and as `label 2` if characters cannot be drawn, see `key`."""
    names = []
    for number, label in enumerate(labels, 1):
        name = " ".join(label.split())
        if ABSENT in drawable(name):
            name = f"label {number}"
        # matplotlib omits names with a leading underscore from legends.
        name = f" {name}" if name.startswith("_") else name
        names.append(name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…")
    return names


def key(labels: Sequence[str]) -> str:
    """What numbered names of `label_names` stand for: `label 1 is ..., label 2 is ...`."""
    return ", ".join(f"{name.strip()} is {label}" for name, label in zip(label_names(labels), labels, strict=True)
                     if ABSENT in drawable(" ".join(label.split())))  # fmt: skip


@cache
def warn_of(missing: str) -> None:
    """Warn once about the labels that figures name by numbers, and say what would help."""
    log.warning(
        "figures: no installed font has the characters of some labels (%s); install one with them, such as Noto Sans CJK", missing
    )

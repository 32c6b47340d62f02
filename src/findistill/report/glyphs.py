"""Text in figures: what the fonts of this machine can draw, and what stands for the rest.

matplotlib would draw boxes, and warn for every character of every label.
"""

import logging
from collections.abc import Sequence
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)

FAMILIES = (  # tried in this order for each character, where they are installed
    "DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans CJK JP", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC",
    "Hiragino Sans GB", "Heiti TC", "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Emoji", "Segoe UI Symbol", "Segoe UI Emoji",
)  # fmt: skip
ABSENT = "\N{WHITE SQUARE}"  # stands for a character that no font has
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
    """How figures write these labels: shortened, and as `label 2` where characters cannot be drawn, see `key`."""
    names = []
    for number, label in enumerate(labels, 1):
        name = " ".join(label.split())
        if ABSENT in drawable(name):
            name = f"label {number}"
        # matplotlib leaves a name with an underscore in front out of legends.
        name = f" {name}" if name.startswith("_") else name
        names.append(name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…")
    return names


def key(labels: Sequence[str]) -> str:
    """What the names of `label_names` stand for, where they are not the labels: `label 1 is ..., label 2 is ...`."""
    return ", ".join(f"{name.strip()} is {label}" for name, label in zip(label_names(labels), labels, strict=True)
                     if ABSENT in drawable(" ".join(label.split())))  # fmt: skip


@cache
def warn_of(missing: str) -> None:
    """Say once which labels the figures name by numbers, and what would help."""
    log.warning("figures: no font here has the characters of some labels (%s); Noto Sans CJK has most scripts", missing)

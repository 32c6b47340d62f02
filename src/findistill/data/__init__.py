"""Sources of texts, their labels and splits, and the nearest neighbours of a text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from findistill.data.labels import LabelSet
    from findistill.data.loading import fingerprint, load
    from findistill.data.texts import DataCard, TextData

__all__ = ["DataCard", "LabelSet", "TextData", "fingerprint", "load"]

_HOMES = {
    "DataCard": "texts",
    "LabelSet": "labels",
    "TextData": "texts",
    "fingerprint": "loading",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): a configuration error must not wait for pandas.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

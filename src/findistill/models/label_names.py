"""Which output of a model stands for which label of the data: by its name, a known spelling, or a mapping; never guessed."""

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from omegaconf import ListConfig

from findistill.config.overrides import mapping_of, typed
from findistill.errors import UserError

log = logging.getLogger(__name__)

SPELLINGS = {  # of sentiment labels; used only if both sets, the model's and the data's, consist of them
    "negative": "negative", "neg": "negative", "bearish": "negative", "bear": "negative",
    "neutral": "neutral", "neu": "neutral",
    "positive": "positive", "pos": "positive", "bullish": "positive", "bull": "positive",
}  # fmt: skip


def match_labels(
    model_labels: Sequence[str], labels: Sequence[str], *, model: str, setting: str = "evaluate.label_map", label_map: Any = None
) -> np.ndarray:
    """The column of `labels` that each of the model's outputs stands for, (n_outputs,) int64; -1 for one that stands for none.

    Names match regardless of case. A model may have further labels: then the most probable of `labels` counts, which is
    logged. It may lack labels only if `label_map` says so. Outputs mapped to the same label are added up.

    Args:
        model: the model's name, for messages.
        setting: where `label_map` is set, for messages.
        label_map: name of an output -> label (None: stands for none), or the labels in the order of the outputs; names that
            a mapping leaves out stand for themselves. A map with labels that the data lacks is ignored if the model's labels
            are those of the data.

    Raises:
        UserError: labels without an output, a mapping with unknown outputs or labels.
    """
    label_map = mapping_of(label_map)
    names = _renamed(model_labels, labels, model, setting, label_map)
    if same_labels(model_labels, labels) and not set(names) <= {*labels, None}:  # the map is for another of several test sets
        names, label_map = list(model_labels), None
    columns = _by_name(names, labels)
    missing = [label for column, label in enumerate(labels) if column not in set(columns)]
    if missing and label_map is None:
        ours, theirs = _spelled(labels), _spelled(model_labels)
        if not ours or set(ours) != set(theirs):
            raise UserError(_mismatch(model_labels, labels, missing, model, setting))
        columns = np.array([ours.index(sentiment) for sentiment in theirs], np.int64)
        pairs = ", ".join(f"{name} is {labels[column]}" for name, column in zip(model_labels, columns, strict=True))
        _say(logging.INFO, f"{model} spells the labels differently: {pairs}")
    further = [str(name) for name, column in zip(names, columns, strict=True) if column < 0 and name is not None]
    if further and (missing or isinstance(label_map, list | tuple | ListConfig)):
        raise UserError(f"{setting}: {further[0]!r} is not one of the data's labels, {', '.join(labels)}")
    if (columns < 0).all():
        raise UserError(f"{setting} maps no output of {model} to a label of the data, {', '.join(labels)}")
    if further:
        _say(
            logging.WARNING,
            f"{model} has labels that the data lacks ({', '.join(further)}); its most probable label of the data counts",
        )
    return columns


@cache
def _say(level: int, line: str) -> None:
    """Log a line once."""
    log.log(level, "%s", line)


def same_labels(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two sets have the same names, regardless of case and order."""
    return sorted(map(_plain, first)) == sorted(map(_plain, second))


def add_up(shares: np.ndarray, columns: np.ndarray, n_labels: int) -> np.ndarray:
    """A model's outputs (n, n_outputs) as (n, n_labels), by `columns` of `match_labels`: outputs of one label are added."""
    summed = np.zeros((len(shares), n_labels), shares.dtype)
    for output in np.flatnonzero(columns >= 0):
        summed[:, columns[output]] += shares[:, output]
    return summed


def _renamed(model_labels: Sequence[str], labels: Sequence[str], model: str, setting: str, label_map: Any) -> list[str | None]:
    if label_map is None:
        return list(model_labels)
    if isinstance(label_map, Mapping):
        targets = {str(key): None if value is None else str(value) for key, value in label_map.items()}
        places = {key: _by_name([key], model_labels)[0] for key in targets}
        if unknown := [key for key, place in places.items() if place < 0]:
            raise UserError(f"{setting}.{unknown[0]}: {model} has no such label; it has {', '.join(model_labels)}")
        names: list[str | None] = list(model_labels)
        for key, place in places.items():
            names[place] = targets[key]
        return names
    if not isinstance(label_map, list | tuple | ListConfig) or len(label_map) != len(model_labels):
        raise UserError(
            f"{setting}={label_map}: give a label for each of the {len(model_labels)} labels of {model} "
            f"({', '.join(model_labels)}): {example(model_labels, labels, setting)}"
        )
    return [None if value is None else str(value) for value in label_map]


def _by_name(names: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """The index of each name in `labels`, as it is spelled or, if that is unambiguous, regardless of case; else -1."""
    exact = {label: place for place, label in enumerate(labels)}
    loose: dict[str, int] = {}
    for place, label in enumerate(labels):
        loose[_plain(label)] = place if _plain(label) not in loose else -1
    return np.array([-1 if name is None else exact.get(name, loose.get(_plain(name), -1)) for name in names], np.int64)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _spelled(names: Sequence[str]) -> list[str]:
    """The sentiment that each name spells; empty unless all do, and all differ."""
    canonical = [SPELLINGS.get(_plain(name), "") for name in names]
    return canonical if all(canonical) and len(set(canonical)) == len(canonical) else []


def _mismatch(model_labels: Sequence[str], labels: Sequence[str], missing: Sequence[str], model: str, setting: str) -> str:
    has = f"has the labels {', '.join(model_labels)}; " + (
        f"none is one of {', '.join(labels)}" if len(missing) == len(labels) else f"it lacks {', '.join(missing)} of the data's"
    )
    if unnamed(model_labels):
        has = f"does not name its labels ({', '.join(model_labels)}, id2label in its config.json)"
    remedy = example(model_labels, labels, setting)
    return f"the model {model} {has}.\nSay what each stands for, such as {remedy}; or edit id2label in its config.json."


def unnamed(model_labels: Sequence[str]) -> bool:
    """Whether these are the default labels of transformers, for a model without label names."""
    return list(model_labels) == [f"LABEL_{number}" for number in range(len(model_labels))]


def example(model_labels: Sequence[str], labels: Sequence[str], setting: str) -> str:
    """An example override: names that match stand for themselves, the others for the remaining labels."""
    columns = _by_name(model_labels, labels)
    free = [label for column, label in enumerate(labels) if column not in set(columns)]
    values = [labels[column] if column >= 0 else free.pop(0) if free else None for column in columns]
    return typed(setting, dict(zip(model_labels, values, strict=True)))

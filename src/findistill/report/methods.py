"""From runs to methods: jobs that differ only in their seed, on the same test rows in the same order."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pandas as pd

from findistill.config.overrides import flatten
from findistill.errors import UserError
from findistill.report import parts
from findistill.stats.metrics import codes

# Settings that do not define a method: the seed, and how a job is run and shown.
APART = ("seed", "study", "runs_dir", "logger", "sweep", "report", "hydra")
WORD = r"[\w.-]*"  # in the elements of a list setting


@dataclass(frozen=True)
class Run:
    """One finished job, or a baseline computed for the report."""

    method: str
    kind: str  # that of its report part, or baseline
    seed: int | str | None  # what distinguishes it from repeats of its method, by its part's `identity`
    config: dict[str, Any]  # the settings that define the method, without runtime-only ones
    metrics: dict[str, float]
    predictions: pd.DataFrame  # id, text, label (gold), predicted, p_<label>...; annotators: agreement, n_samples
    folder: Path | None = None
    status: dict[str, Any] = field(default_factory=dict)
    draw: int | None = None  # of the labelled rows, `data.labelled_seed`


@dataclass(frozen=True)
class Method:
    """Runs that differ only in the seed. Rows are sorted by id, so methods of one test set line up."""

    name: str
    kind: str
    test_set: str
    labels: tuple[str, ...]
    ids: np.ndarray  # (n,) str
    gold: np.ndarray  # (n,) label positions
    predicted: np.ndarray  # (seeds, n) label positions, -1 without a prediction
    probabilities: np.ndarray  # (seeds, n, labels), NaN where there are none
    runs: tuple[Run, ...]

    @property
    def config(self) -> dict[str, Any]:
        """The first run's configuration."""
        return self.runs[0].config

    @cached_property
    def settings(self) -> dict[str, str]:
        """The settings that define the method, by dotted key, as text."""
        return _settings(self.config)

    def differs_in(self, other: "Method") -> list[str]:
        """Dotted keys of the settings that define the methods and differ."""
        return _unequal([self.settings, other.settings])

    @property
    def seeds(self) -> tuple[int | str | None, ...]:
        """What distinguishes the runs, in the order of the rows of `predicted`."""
        return tuple(run.seed for run in self.runs)

    @property
    def units(self) -> tuple[int | str | None, ...]:
        """What is independent between the runs, in the order of `seeds`; see `units_of`."""
        return units_of(self.runs)

    @property
    def correct(self) -> np.ndarray:
        """(seeds, n) of bool."""
        return self.predicted == self.gold

    def mean_metric(self, key: str) -> float | None:
        """A recorded metric's mean over the runs that have it, None if none has."""
        values = [run.metrics[key] for run in self.runs if run.metrics.get(key) is not None]
        return float(np.mean(values)) if values else None

    def by_number(self, pattern: str) -> dict[int, np.ndarray]:
        """Metrics whose name has a number where `pattern` has {}: number -> (runs,), ascending, if all runs have it."""
        shape = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        numbers = sorted({int(match[1]) for key in self.runs[0].metrics if (match := shape.fullmatch(key))})
        rows = {number: [run.metrics.get(pattern.format(number)) for run in self.runs] for number in numbers}
        return {number: np.array(row, float) for number, row in rows.items() if None not in row}


def units_of(runs: Sequence[Run]) -> tuple[int | str | None, ...]:
    """What is independent between the runs: the draws of labelled rows, which several seeds may share, or else the seeds."""
    draws = tuple(run.draw for run in runs)
    return draws if len(set(draws)) > 1 else tuple(run.seed for run in runs)


def setting(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested mappings, None if they have none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def gather(runs: Iterable[Run]) -> list[Method]:
    """Group runs into methods, in order of first appearance; seeds ascending.

    Methods on the same rows share a `test_set`, named after their data; other rows of the same data get another name.
    Methods of one name on one test set get the settings that distinguish them appended.

    Raises:
        UserError: predictions without a needed column, with repeated ids or unlabelled rows; seeds of one method tested
            on different rows; the same seed twice.
    """
    methods = [_method(group) for group in repeats(runs)]
    return with_unique_names(_on_test_sets(methods))


def repeats(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs of each method, in order of first appearance; seeds ascending."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, json.dumps(deciding(run.config), sort_keys=True, default=str)), []).append(run)
    return [sorted(group, key=lambda run: (len(str(run.seed)), str(run.seed))) for group in groups.values()]


def differing(configs: list[dict[str, Any]]) -> list[str]:
    """Dotted keys in which the configurations differ, except those that do not define a method."""
    return _unequal([_settings(config) for config in configs])


def _unequal(settings: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key, repr(None)) for each in settings}) > 1]


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings without `APART` by dotted key, as text. An empty section means the same as none."""
    return {key: repr(value) for key, value in flatten(deciding(config)).items() if value != {}}


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without `APART`."""
    return {name: section for name, section in config.items() if name not in APART}


def _method(runs: list[Run]) -> Method:
    name, labels = runs[0].method, _labels(runs[0])
    for previous, run in pairwise(runs):
        if previous.seed == run.seed:
            raise UserError(f"{name}: seed {run.seed} was run twice ({previous.folder}, {run.folder}). Remove one.")
    frames = [checked(run) for run in runs]
    ids, gold = frames[0]["id"].to_numpy(dtype=str), codes(frames[0]["label"].tolist(), labels, what=f"gold label of {name}")
    for run, frame in zip(runs, frames, strict=True):
        truth = codes(frame["label"].tolist(), labels, what=f"gold label of {name}")
        if not (np.array_equal(ids, frame["id"].to_numpy(dtype=str)) and np.array_equal(gold, truth)):
            raise UserError(
                f"{name}: seeds {runs[0].seed} and {run.seed} were tested on different rows ({run.folder}).\n"
                "The test split must not depend on the seed: keep data.seed fixed."
            )
    predicted = np.stack([codes(frame["predicted"].tolist(), labels, what=f"prediction of {name}") for frame in frames])
    columns = [f"p_{label}" for label in labels]
    probabilities = np.stack([frame.reindex(columns=columns).to_numpy(dtype=float) for frame in frames])
    test_set = str(setting(runs[0].config, "data.name") or "test")
    return Method(name, runs[0].kind, test_set, labels, ids, gold, predicted, probabilities, tuple(runs))


def _labels(run: Run) -> tuple[str, ...]:
    named = [column[2:] for column in run.predictions.columns if column.startswith("p_")]
    return tuple(named or setting(run.config, "data.labels") or sorted(run.predictions["label"].dropna().unique()))


def checked(run: Run) -> pd.DataFrame:
    """The run's predictions, sorted by id. Raises UserError for missing columns or gold labels, and for repeated ids."""
    where = f"predictions of {run.method}" + (f" ({run.folder})" if run.folder else "")
    missing = [column for column in ("id", "label", "predicted") if column not in run.predictions.columns]
    if missing:
        raise UserError(f"{where}: no column {', '.join(missing)}. Run the job again.")
    frame = run.predictions.sort_values("id", key=lambda ids: ids.astype(str), kind="stable")
    if not len(frame) or frame["label"].isna().any():
        raise UserError(f"{where}: no rows, or rows without a gold label. Test on labelled rows.")
    if not frame["id"].is_unique:
        raise UserError(f"{where}: id {frame.loc[frame['id'].duplicated(), 'id'].iloc[0]!r} occurs twice.")
    return frame


def _on_test_sets(methods: list[Method]) -> list[Method]:
    def digest(method: Method) -> str:
        return hashlib.sha256("\n".join([*method.ids, *method.labels]).encode() + method.gold.tobytes()).hexdigest()

    names: dict[str, str] = {}  # digest of the rows -> name
    for method in methods:
        number = sum(name == method.test_set or name.startswith(f"{method.test_set} #") for name in names.values())
        names.setdefault(digest(method), f"{method.test_set} #{number + 1}" if number else method.test_set)
    return [replace(method, test_set=names[digest(method)]) for method in methods]


class Named(Protocol):
    """The parts of a method that its name is made of."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def test_set(self) -> str: ...
    @property
    def config(self) -> dict[str, Any]: ...


N = TypeVar("N", bound=Named)


def with_unique_names(methods: list[N]) -> list[N]:
    """The methods (dataclasses); those of one name on one test set get the settings that distinguish them appended."""
    by_name: dict[tuple[str, str], list[N]] = {}
    for method in methods:
        by_name.setdefault((method.test_set, method.name), []).append(method)
    details = {place: details_of([twin.config for twin in twins]) for place, twins in by_name.items()}
    return [
        cast(N, replace(cast(Any, method), name=_detailed(method, details[method.test_set, method.name]))) for method in methods
    ]


@dataclass(frozen=True)
class Detail:
    """A setting that distinguishes methods of one name; the elements of its lists all have `start` and `end` in common."""

    key: str
    start: str
    end: str

    def of(self, config: Mapping[str, Any]) -> str:
        """The setting of one method as its name has it."""
        value = setting(config, self.key)
        if isinstance(value, list) and value:
            return f"[{', '.join(str(each)[len(self.start) : len(str(each)) - len(self.end)] for each in value)}]"
        return "none" if value in ("", None, []) else str(value)


def details_of(configs: list[dict[str, Any]], without: Collection[str] = ()) -> list[Detail]:
    """The settings that are needed to distinguish the configurations, in their order, apart from the keys `without`."""
    keys = _distinguishing(configs, [key for key in differing(configs) if key not in without])
    return [Detail(key, *_common([setting(config, key) for config in configs])) for key in keys]


def _distinguishing(configs: list[dict[str, Any]], candidates: Sequence[str]) -> list[str]:
    """Those of the candidate keys that are needed to distinguish all configurations, in their order."""
    keys: list[str] = []
    groups = 1
    for key in candidates:
        count = len({repr([setting(config, each) for each in (*keys, key)]) for config in configs})
        if count > groups:
            keys, groups = [*keys, key], count
    return keys


def _detailed(method: Named, details: Sequence[Detail]) -> str:
    part = parts.of_kind(method.kind)
    written = ", ".join(f"{part.setting_name(one.key)}={one.of(method.config)}" for one in details)
    return f"{method.name} ({written})" if written else method.name


def _common(values: Sequence[Any]) -> tuple[str, str]:
    """What all elements of several lists begin and end with, up to a sign that is not part of a word."""
    elements = [str(each) for value in values if isinstance(value, list) for each in value]
    if len(set(elements)) < 2:
        return "", ""
    start = re.sub(WORD + "$", "", _beginning(elements))
    end = re.sub("^" + WORD, "", _beginning([each[len(start) :][::-1] for each in elements])[::-1])
    return start, end


def _beginning(texts: Sequence[str]) -> str:
    """The characters that all texts begin with."""
    return "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*texts, strict=False)))

"""From runs to methods: jobs that are equal but for their seed, on the same test rows in the same order."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from findistill.analysis.metrics import codes
from findistill.errors import UserError
from findistill.settings.schema import unpaced

# Settings that do not make another method: the seed, and how a job is run and shown.
APART = ("seed", "study", "runs_dir", "logger", "sweep", "report", "hydra")
LABELS_ALONE = "labels alone"  # a student that could have had a teacher model
# An annotator's job has no seed. Jobs that differ in these alone are repeats of one method.
REPEATS = ("shots.order", "shots.seed", "annotate.seed")


@dataclass(frozen=True)
class Run:
    """One finished job, or a baseline computed for the report."""

    method: str
    kind: str  # student, teacher, annotator, baseline, ...
    seed: int | str | None  # an annotator's: the values of `REPEATS`, as in 1/0/0
    config: dict[str, Any]  # the settings that make the method, and for trained models all others
    metrics: dict[str, float]
    predictions: pd.DataFrame  # id, text, label (gold), predicted, p_<label>...; annotators: agreement, n_samples
    folder: Path | None = None
    status: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """Runs equal but for the seed. Rows are sorted by id, so methods of one test set line up."""

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

    @property
    def correct(self) -> np.ndarray:
        """(seeds, n) of bool."""
        return self.predicted == self.gold

    @property
    def objective(self) -> str | None:
        """`CLS` or `REG` of a student, else None."""
        name = setting(self.config, "distill.objective") if self.kind == "student" else None
        return str(name).upper() if name else None

    @property
    def threshold(self) -> int | None:
        """A student's `distill.min_agreement`, else None."""
        value = setting(self.config, "distill.min_agreement") if self.kind == "student" else None
        return None if value is None else int(value)

    @property
    def terms(self) -> dict[str, float]:
        """The terms, with their weights, by which a student learnt from a teacher model; none of other methods."""
        if self.kind != "student" or setting(self.config, "distill.votes") != "teacher":
            return {}
        weights = setting(self.config, "distill.terms") or {}
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def on_labels_alone(self) -> bool:
        """Whether a student that could have learnt from a teacher model did not: its one term is the gold label."""
        return taught_by(self.terms) == LABELS_ALONE

    def mean_metric(self, key: str) -> float | None:
        """A recorded metric's mean over the runs that have it, None where none has."""
        found = [run.metrics[key] for run in self.runs if run.metrics.get(key) is not None]
        return float(np.mean(found)) if found else None

    def by_number(self, pattern: str) -> dict[int, np.ndarray]:
        """Metrics whose name has a number where `pattern` has {}: number -> (runs,), ascending, where all runs have it."""
        shape = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        numbers = sorted({int(match[1]) for key in self.runs[0].metrics if (match := shape.fullmatch(key))})
        rows = {number: [run.metrics.get(pattern.format(number)) for run in self.runs] for number in numbers}
        return {number: np.array(row, float) for number, row in rows.items() if None not in row}


def setting(config: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key of nested mappings, None where a part is missing."""
    value: Any = config
    for part in dotted.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def taught_by(terms: Mapping[str, float]) -> str:
    """What a student learnt from, by the weights of its terms: `kl`, `hidden + attention + soft_ce`, `labels alone`."""
    used = {name: weight for name, weight in terms.items() if weight}
    if set(used) == {"hard"}:
        return LABELS_ALONE
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in used.items())


def gather(runs: Iterable[Run]) -> list[Method]:
    """Group runs into methods, in order of first appearance; seeds ascending.

    Methods on the same rows share a `test_set`, named by their data; other rows of the same data get a name of their
    own. Methods of one name on one test set get the settings that tell them apart appended.

    Raises:
        UserError: predictions without a needed column, with repeated ids or unlabelled rows; seeds of one method tested
            on different rows; the same seed twice.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.method, json.dumps(_deciding(run.config), sort_keys=True, default=str)), []).append(run)
    methods = [_method(sorted(group, key=lambda run: (len(str(run.seed)), str(run.seed)))) for group in groups.values()]
    return _told_apart(_on_test_sets(methods))


def differing(configs: list[dict[str, Any]]) -> list[str]:
    """Dotted keys on which the configurations differ, those aside that make no other method."""
    flats = [_flat(_deciding(config)) for config in configs]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    return [key for key in keys if len({repr(flat.get(key)) for flat in flats}) > 1]


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without `APART`, and without what changes a job's pace alone."""
    return unpaced({name: section for name, section in config.items() if name not in APART})


def _method(runs: list[Run]) -> Method:
    name = runs[0].method
    labels = _labels(runs[0])
    ids: np.ndarray | None = None
    gold, predicted, probabilities = np.empty(0, np.int64), [], []
    for previous, run in zip([None, *runs], runs, strict=False):
        if previous is not None and previous.seed == run.seed:
            raise UserError(f"{name}: seed {run.seed} was run twice ({previous.folder}, {run.folder}). Remove one.")
        frame = _checked(run)
        own = frame["id"].to_numpy(dtype=str)
        truth = codes(frame["label"].tolist(), labels, what=f"gold label of {name}")
        if ids is None:
            ids, gold = own, truth
        elif not (np.array_equal(ids, own) and np.array_equal(gold, truth)):
            raise UserError(
                f"{name}: seeds {runs[0].seed} and {run.seed} were tested on different rows ({run.folder}).\n"
                "The test split must not depend on the seed: keep data.seed fixed."
            )
        predicted.append(codes(frame["predicted"].tolist(), labels, what=f"prediction of {name}"))
        columns = [f"p_{label}" for label in labels]
        shares = frame.reindex(columns=columns).to_numpy(dtype=float)
        probabilities.append(shares)
    assert ids is not None
    test_set = str(setting(runs[0].config, "data.name") or "test")
    kind = runs[0].kind
    return Method(name, kind, test_set, labels, ids, gold, np.stack(predicted), np.stack(probabilities), tuple(runs))


def _labels(run: Run) -> tuple[str, ...]:
    named = [column[2:] for column in run.predictions.columns if column.startswith("p_")]
    return tuple(named or setting(run.config, "data.labels") or sorted(run.predictions["label"].dropna().unique()))


def _checked(run: Run) -> pd.DataFrame:
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
    names: dict[str, str] = {}  # digest of the rows -> name
    placed = []
    for method in methods:
        digest = hashlib.sha256("\n".join([*method.ids, *method.labels]).encode() + method.gold.tobytes()).hexdigest()
        if digest not in names:
            taken = sum(name == method.test_set or name.startswith(f"{method.test_set} #") for name in names.values())
            names[digest] = f"{method.test_set} #{taken + 1}" if taken else method.test_set
        placed.append(replace(method, test_set=names[digest]))
    return placed


def _told_apart(methods: list[Method]) -> list[Method]:
    by_name: dict[tuple[str, str], list[Method]] = {}
    for method in methods:
        by_name.setdefault((method.test_set, method.name), []).append(method)
    details = {place: _telling([twin.config for twin in twins]) for place, twins in by_name.items() if len(twins) > 1}
    return [replace(m, name=_detailed(m, details.get((m.test_set, m.name), []))) for m in methods]


def _telling(configs: list[dict[str, Any]]) -> list[str]:
    """As few of the differing keys as tell all configurations apart, in their order."""
    kept: list[str] = []
    seen = 1
    for key in differing(configs):
        apart = len({repr([setting(config, each) for each in (*kept, key)]) for config in configs})
        if apart > seen:
            kept, seen = [*kept, key], apart
    return kept


def _detailed(method: Method, keys: list[str]) -> str:
    # An annotator's name is long as it is: of its settings' names the last word has to do.
    words = {key: key.rpartition(".")[2] if method.kind == "annotator" else key for key in keys}
    values = {key: setting(method.config, key) for key in keys}
    shown = ", ".join(f"{word}={'none' if values[key] in ('', None) else values[key]}" for key, word in words.items())
    return f"{method.name} ({shown})" if shown else method.name


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat

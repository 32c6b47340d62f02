"""The report part of `stage=entities`: models that mark entities, in tables by model, source of labels and seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from findistill.data.span_counts import counts
from findistill.data.spans import from_cell
from findistill.errors import UserError
from findistill.llm.identity import selected
from findistill.methods.entities import plots
from findistill.methods.entities.config import LEARNT
from findistill.methods.entities.steps import settings_of
from findistill.report.methods import Run, repeats, setting, units_of, with_unique_names
from findistill.report.parts import Part, Section, Table, Wording
from findistill.report.style import cost_and_score
from findistill.report.tables import estimate
from findistill.stats.intervals import Estimate
from findistill.stats.significance import holm
from findistill.stats.spans import paired, scores, seed_means

WORDING = Wording(__package__)
BY_RUN = {  # column -> its key in metrics.json
    "labels_used": "data/kept", "validation_f1": "val/f1", "threshold": "val/threshold", "train_s": "time/train_s",
    "parameters": "model/parameters", "model_mb": "model/mb", "latency_p50_ms": "latency/p50_ms",
    "throughput_texts_per_s": "throughput/texts_per_s", "usd_per_1000_texts": "cost/usd_per_1000_texts",
}  # fmt: skip
NAMES = {
    "token": "token classifier",
    "gliner": "GLiNER",
    "span_marker": "SpanMarker",
    "spacy": "spaCy",
    "company_list": "company list",
}
WORDS = {
    "human": "human labels",
    "llm": "LLM labels",
    "mixed": "LLM and human labels",
    "company_list": "the company list's labels",
    "spacy": "spaCy's labels",
    "none": "",
}


@dataclass(frozen=True)
class Marker:
    """Runs of a model that differ only in the seed, on the same test texts.

    Attributes:
        counts: (seeds, texts, labels, 5), see `data.span_counts`.
    """

    name: str
    kind: str
    test_set: str
    labels: tuple[str, ...]
    counts: np.ndarray
    runs: tuple[Run, ...]

    @property
    def config(self) -> dict[str, Any]:
        return self.runs[0].config

    @property
    def family(self) -> str:
        """The model and its source of labels, regardless of the number of texts."""
        entities = self.config["entities"]
        return f"{_model(entities)}, {WORDS[entities['source']]}"

    @property
    def seeds(self) -> list[object]:
        return [run.seed for run in self.runs]

    def mean_metric(self, key: str) -> float | None:
        """A recorded metric's mean over the runs that have it, None if none has."""
        values = [run.metrics[key] for run in self.runs if run.metrics.get(key) is not None]
        return float(np.mean(values)) if values else None


class EntitiesPart(Part):
    """Models that mark entities: they do not label texts, so they have a separate section."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        entities = config["entities"]
        if entities["step"] == "label":
            return selected(config["llm"].get("where")) or str(config["llm"]["name"])
        name = _model(entities)
        if "data/kept" not in metrics:
            return f"{name}, as it is" if entities["model"] in LEARNT else name
        return f"{name} on {metrics['data/kept']:,.0f} texts, {WORDS[entities['source']]}"

    def identity(self, config: dict[str, Any]) -> tuple[int | str | None, dict[str, Any]]:
        entities, own = config["entities"], settings_of(config["entities"])
        return config["seed"], {**config, "entities": {name: value for name, value in entities.items() if name in own}}

    def scores(self, config: Mapping[str, Any]) -> bool:
        step = config["entities"]["step"]
        return bool(step == "train" or (step == "label" and config["extract"].get("rows") == "test"))

    def sections(self, runs: Sequence[Run], resamples: int) -> Iterator[Section]:
        """One for each test set.

        Raises:
            UserError: runs of one model were tested on different texts.
        """
        markers = with_unique_names([_marker(group) for group in repeats(runs)])
        for test_set in dict.fromkeys(marker.test_set for marker in markers):
            own = [marker for marker in markers if marker.test_set == test_set]
            estimates = {m.name: seed_means(m.counts.sum(2), units=units_of(m.runs), resamples=resamples) for m in own}
            own.sort(key=lambda marker: -estimates[marker.name]["f1"].mean)
            best = _best(own)
            compared = [_compared(best, own, resamples)] if len(own) > 1 else []
            compared += _sources_compared(own, resamples)
            tables = [_table(own, estimates), *compared, _by_seed(own), *([_by_label(own)] if len(own[0].labels) > 1 else [])]
            pictures = [WORDING.picture("entities", plots.comparison({m.name: estimates[m.name]["f1"] for m in own}, test_set))]
            if curves := plots.curves(own):
                pictures.append(WORDING.picture("entities_by_texts", plots.by_texts(curves, estimates, test_set)))
            spent = {marker.name: cost for marker in own if (cost := marker.mean_metric("cost/usd_per_1000_texts"))}
            scores_of = {name: estimates[name]["f1"] for name in spent}
            if len(spent) > 1:
                figure = cost_and_score(spent, scores_of, "USD per 1,000 texts", test_set, "exact F1")
                pictures.append(WORDING.picture("entities_cost", figure))
            summary = _summary(best, own, estimates)
            yield Section(test_set, f"{own[0].counts.shape[1]:,} {self.rows}", summary, _doubts(own), tables, pictures)

    def notes(self, methods: Sequence[Any]) -> list[str]:
        return WORDING.notes()


def _model(entities: Mapping[str, Any]) -> str:
    """The model's name, with the trained model it started from."""
    base = (entities.get(entities["model"]) or {}).get("model") if entities["model"] in LEARNT else None
    return NAMES[entities["model"]] + (f" ({base})" if base else "")


def _marker(runs: Sequence[Run]) -> Marker:
    tables, labels, identical = [], _labels(runs[0]), None
    for run in runs:
        frame = run.predictions.sort_values("id", key=lambda ids: ids.astype(str), kind="stable")
        gold, predicted = ([from_cell(cell) for cell in frame[column]] for column in ("spans", "predicted"))
        if identical not in (None, (frame["id"].tolist(), gold)):
            raise UserError(
                f"{run.method}: seeds {runs[0].seed} and {run.seed} were tested on different texts ({run.folder}).\n"
                "The test split must not depend on the seed: keep data.seed fixed."
            )
        identical = frame["id"].tolist(), gold
        tables.append(counts(gold, predicted, labels))
    test_set = str(setting(runs[0].config, "data.name") or "test")
    return Marker(runs[0].method, runs[0].kind, test_set, labels, np.stack(tables), tuple(runs))


def _labels(run: Run) -> tuple[str, ...]:
    named = setting(run.config, "data.labels")
    return tuple(named or sorted({each["label"] for cell in run.predictions["spans"] for each in cell}))


def _best(markers: Sequence[Marker]) -> Marker:
    """The best model by validation F1 or, if none has one, by the test texts.

    Each is validated on its own source's labels, which it agrees with best, so models trained on human labels are preferred.
    """
    validated = [marker for marker in markers if marker.mean_metric("val/f1") is not None]
    by_people = [marker for marker in validated if setting(marker.config, "entities.source") == "human"]
    if validated:
        return max(by_people or validated, key=lambda marker: marker.mean_metric("val/f1") or 0.0)
    return max(markers, key=lambda marker: float(scores(marker.counts.sum((1, 2)))["f1"].mean()))


def _summary(best: Marker, markers: Sequence[Marker], estimates: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The best model's score, how it was selected, and any other model that scores higher on the test texts."""
    fair = best.mean_metric("val/f1") is not None
    chosen = "Selected on the validation split." if fair else "Selected on the rows that it is scored on, which favours it."
    top = max(markers, key=lambda marker: estimates[marker.name]["f1"].mean)
    above = "" if top is best else f" {top.name} scores higher on these texts, {estimate(estimates[top.name]['f1'])}."
    return f"Best model: {best.name}, exact F1 {estimate(estimates[best.name]['f1'])}. {chosen}{above}"


def _table(markers: Sequence[Marker], estimates: Mapping[str, Mapping[str, Estimate]]) -> Table:
    rows = []
    for marker in markers:
        row: dict[str, Any] = {
            "method": marker.name,
            "n_seeds": len(marker.runs),
            "source": setting(marker.config, "entities.source"),
        }
        row |= {"seeds": " ".join(map(str, marker.seeds)), "texts": marker.counts.shape[1]}
        for key, one in estimates[marker.name].items():
            row |= {key: one.mean, f"{key}_sd": one.sd, f"{key}_lo": one.low, f"{key}_hi": one.high}
        row |= {column: marker.mean_metric(key) for column, key in BY_RUN.items()}
        row["device"] = ", ".join(dict.fromkeys(str(run.status["device"]) for run in marker.runs if run.status.get("device")))
        rows.append(row)
    return _without_empty(WORDING.table("entities", pd.DataFrame(rows)))


def _by_seed(markers: Sequence[Marker]) -> Table:
    rows = []
    for marker in markers:
        every = scores(marker.counts.sum((1, 2)))
        for at, run in enumerate(marker.runs):
            own = {key: float(value[at]) for key, value in every.items()}
            recorded = {column: run.metrics.get(key) for column, key in BY_RUN.items()}
            rows.append({"method": marker.name, "seed": run.seed, **own, **recorded})
    return _without_empty(WORDING.table("entities_by_seed", pd.DataFrame(rows)))


def _by_label(markers: Sequence[Marker]) -> Table:
    rows = []
    for marker in markers:
        every = scores(marker.counts.sum(1))
        rows += [
            {"method": marker.name, "label": label, **{key: float(value[:, at].mean()) for key, value in every.items()}}
            for at, label in enumerate(marker.labels)
        ]
    return WORDING.table("entities_by_label", pd.DataFrame(rows))


def _compared(best: Marker, markers: Sequence[Marker], resamples: int) -> Table:
    others = [marker for marker in markers if marker is not best and marker.counts.shape[1] == best.counts.shape[1]]
    return WORDING.table("entities_compared", _tested([(best, other) for other in others], resamples), best=best.name)


def _tested(pairs: Sequence[tuple[Marker, Marker]], resamples: int) -> pd.DataFrame:
    """One row per pair: a paired test of the first minus the second, with p adjusted by Holm over all pairs."""
    tests = [
        paired(a.counts.sum(2), b.counts.sum(2), seeds_a=units_of(a.runs), seeds_b=units_of(b.runs), resamples=resamples)
        for a, b in pairs
    ]
    adjusted = holm([test.p or 0.0 for test in tests])
    return pd.DataFrame([
        {"method": b.name, **vars(test), "p_holm": p} for (_, b), test, p in zip(pairs, tests, adjusted, strict=True)
    ])  # fmt: skip


def _sources_compared(markers: Sequence[Marker], resamples: int) -> list[Table]:
    """Each model trained on other labels against the same model on as many human-labelled texts; empty without such a pair."""

    def alike(marker: Marker) -> str:
        entities = marker.config["entities"]
        sizes = [setting(marker.config, key) for key in plots.SIZES]
        return json.dumps([entities["model"], entities.get(entities["model"]), *sizes], default=str)

    trained = [marker for marker in markers if marker.mean_metric("data/kept") is not None]
    people = {alike(marker): marker for marker in trained if setting(marker.config, "entities.source") == "human"}
    others = [marker for marker in trained if marker is not people.get(alike(marker)) and alike(marker) in people]
    if not others:
        return []
    others.sort(key=lambda marker: marker.mean_metric("data/kept") or 0.0)
    frame = _tested([(other, people[alike(other)]) for other in others], resamples)
    frame.insert(1, "against", frame["method"])
    frame["method"] = [other.name for other in others]
    return [WORDING.table("entities_sources", frame)]


def _without_empty(table: Table) -> Table:
    """The table without columns that are empty for all models."""
    columns = {name: text for name, text in table.columns.items() if table.frame[name].replace("", np.nan).notna().any()}
    return Table(table.name, table.title, table.note, table.frame, columns)


def _doubts(markers: Sequence[Marker]) -> list[str]:
    doubts = []
    for marker in markers:
        if number := marker.mean_metric("test/learnt_from"):
            doubts.append(f"{marker.name}: it was trained on {number:,.0f} of the {marker.counts.shape[1]:,} test texts.")
        if not marker.counts[..., 0].any():
            doubts.append(f"{marker.name}: it marks no entities.")
    return doubts


PART = EntitiesPart(**WORDING.content["part"])

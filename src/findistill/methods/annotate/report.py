"""The report part of `stage=annotate`: annotators, their repeats, and the effects of samples, agreement and early stopping.

An annotator is an LLM with its prompt, demonstrations and samples. Its repeats (other orders, samples or demonstrations)
take the place of a trained model's seeds.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from findistill.llm.identity import OWN_ANNOTATORS, TUNED
from findistill.methods.annotate import plots
from findistill.report.comparisons import best, setting_families
from findistill.report.methods import Method, setting
from findistill.report.parts import BASELINE, Family, Part, Picture, Results, Table, Wording
from findistill.report.style import cost_and_score
from findistill.report.tables import front_table

WORDING = Wording(__package__)
# Jobs that differ in these alone are repeats of one method.
REPEATS = ("shots.order_seed", "shots.seed", "annotate.seed")
DIFFER_IN = "annotators that differ in "
AGAINST_BASELINES = "best annotator against the rest"
NUMBERED = re.compile(r"annotate/((?:accuracy_samples|accuracy_at|kept_share)_\d+|stop_\d+_(?:accuracy|samples))")


def annotator_settings(config: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Copies of the sections that define an annotator, and of `more`."""
    tuned = ("qlora",) if config["llm"].get("adapter") == TUNED else ()
    sections = ("stage", "data", "llm", "prompt", "shots", "annotate", *tuned, *more)
    return {name: dict(config[name]) for name in sections}


class AnnotatorPart(Part):
    """Annotators are scored on the texts that they labelled, against the gold labels of the source."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        if members := setting(config, "annotate.ensemble"):
            return f"{config['annotate']['combine']} of {len(members)} annotators"
        if config["llm"].get("model") in OWN_ANNOTATORS:  # no prompt
            return str(config["llm"]["name"])
        return f"{config['llm']['name']} {config['prompt']['name']} k={config['shots']['k']}"

    def identity(self, config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        settings = annotator_settings(config)
        values = [settings[section].pop(name) for section, name in (key.split(".") for key in REPEATS)]
        return "/".join("-" if value is None else str(value) for value in values), settings

    def setting_name(self, key: str) -> str:
        return key.rpartition(".")[2]  # an annotator's name is long enough without the sections

    def numbered_columns(self, keys: Iterable[str]) -> dict[str, str]:
        return {match[1]: key for key in keys if (match := NUMBERED.fullmatch(key))}

    def families(self, methods: Sequence[Method]) -> Iterator[Family]:
        own = self.own(methods)
        yield from setting_families(DIFFER_IN, own)
        if top := best(own)[0]:
            yield Family(AGAINST_BASELINES, [(top, method) for method in methods if method.kind == BASELINE])

    def tables(self, results: Results) -> Iterator[Table]:
        own = self.own(results.methods)
        stops, curves, (spent, unit) = early_stopping(own), samples_and_agreement(own), spending(own)
        if len(stops):
            yield WORDING.table("early_stopping", stopping_summary(stops), tolerated=100 * plots.TOLERATED)
        if len(curves):
            yield WORDING.table("samples_and_agreement", curves)
        if len(spent) > 1:
            yield front_table(spent, unit, results.estimates)

    def pictures(self, results: Results) -> Iterator[Picture]:
        own = self.own(results.methods)
        stops, (spent, unit) = early_stopping(own), spending(own)
        if any(len(method.by_number("annotate/accuracy_samples_{}")) > 1 for method in own):
            yield WORDING.picture("samples", plots.samples(own))
        if any(method.by_number("annotate/accuracy_at_{}") for method in own):
            yield WORDING.picture("agreement_coverage", plots.coverage(own))
        if spent:
            scores = {name: results.estimates[name]["accuracy"] for name in spent}
            yield WORDING.picture("cost", cost_and_score(spent, scores, unit, results.test_set))
        if len(stops):
            yield WORDING.picture("early_stopping", plots.early_stopping(stops, own))

    def notes(self, methods: Sequence[Method]) -> list[str]:
        return WORDING.notes()


def early_stopping(annotators: Sequence[Method]) -> pd.DataFrame:
    """What `annotate.stop_at` would have saved and changed: one row per method and `stop_at`, means over repeats.

    Columns: method; samples, the number drawn per text; stop_at; saved, the share of samples that were not needed; change,
    in accuracy, relative to all samples. Empty if no method drew all samples of all texts.
    """
    rows = []
    for method in annotators:
        accuracies, samples = method.by_number("annotate/stop_{}_accuracy"), method.by_number("annotate/stop_{}_samples")
        for stop_at, accuracy in accuracies.items():
            saved = float(1 - samples[stop_at].mean() / max(accuracies))
            change = float(np.mean(accuracy - [run.metrics["annotate/accuracy"] for run in method.runs]))
            rows.append((method.name, max(accuracies), stop_at, saved, change))
    return pd.DataFrame(rows, columns=["method", "samples", "stop_at", "saved", "change"])


def stopping_summary(stops: pd.DataFrame) -> pd.DataFrame:
    """Rows of `early_stopping` averaged over the methods; `mark` is at the value that saves most within the tolerated loss."""
    summary = stops.groupby(["samples", "stop_at"], as_index=False).agg(
        methods=("method", "size"), saved=("saved", "mean"), saved_min=("saved", "min"), saved_max=("saved", "max"),
        change=("change", "mean"), change_min=("change", "min"),
    )  # fmt: skip
    tolerated = summary[summary["change"] > -plots.TOLERATED]  # never empty: stop_at = samples loses nothing
    marked = tolerated.groupby("samples")["saved"].idxmax()
    return summary.assign(mark=["yes" if row in set(marked) else "" for row in summary.index])


def samples_and_agreement(annotators: Sequence[Method]) -> pd.DataFrame:
    """Accuracy with one sample, with all, and at the strictest agreement threshold, one row per method."""
    rows: list[dict[str, Any]] = []
    for method in annotators:
        samples = method.by_number("annotate/accuracy_samples_{}")
        accuracy, share = method.by_number("annotate/accuracy_at_{}"), method.by_number("annotate/kept_share_{}")
        if samples and accuracy:
            most, strictest = max(samples), max(accuracy)
            rows.append({
                "method": method.name, "samples": most, "accuracy_1": samples[min(samples)].mean(),
                "accuracy_all": samples[most].mean(), "threshold": strictest, "accuracy_kept": accuracy[strictest].mean(),
                "kept_share": share[strictest].mean(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def spending(annotators: Sequence[Method]) -> tuple[dict[str, float], str]:
    """Method -> US dollars per 1,000 texts or, unless all have a price, tokens per text; and the unit."""
    dollars = {method.name: price for method in annotators if (price := method.mean_metric("cost/usd_per_1000_texts"))}
    if dollars and len(dollars) == len(annotators):
        return dollars, "US dollars for 1,000 texts"
    tokens = {method.name: count for method in annotators if (count := method.mean_metric("annotate/tokens_per_text"))}
    return tokens, "tokens read and written for a text"


PART = AnnotatorPart(scored_on_training_rows=True, **WORDING.content["part"])

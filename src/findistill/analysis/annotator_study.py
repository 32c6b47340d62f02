"""What a study of annotators found, in sentences, figures and a table of early stopping; all of one test set.

An annotator is a method of kind `annotator`: an LLM with its prompt, demonstrations and samples. Its repeats (other
orders, draws or demonstrations) stand where a trained model has seeds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from findistill.analysis import annotator_plots as plots
from findistill.analysis.comparisons import BEST_ANNOTATOR, DIFFER_IN, Comparison, best, pairs_by_setting, value_of
from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import REPEATS, Method
from findistill.analysis.words import against, amount, difference, p_is, points, value

BEARABLE = 0.005  # of accuracy, lost by stopping early


def findings(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]], tests: Sequence[Comparison]) -> list[str]:
    """The main results as sentences, worked out from the numbers; baselines may be among `methods`."""
    annotators = of(methods)
    top, _ = best(annotators)
    assert top is not None
    one = estimates[top.name]
    said = [f"Best annotator: {top.name}, accuracy {value(one['accuracy'])}, macro F1 {value(one['macro_f1'])}{_price(top)}."]
    said += [against(test) for test in tests if test.family == BEST_ANNOTATOR]
    said += _effects(annotators, tests)
    said += _more_samples(annotators, top)
    said += _agreement(top)
    said += _stopping(early_stopping(annotators))
    said += _repeats(annotators, estimates)
    if len(annotators) > 1:
        said.append("“Best” was chosen by macro F1 on the very texts that it is scored on: that flatters it.")
    return said


def of(methods: Sequence[Method]) -> list[Method]:
    """The annotators among `methods`."""
    return [method for method in methods if method.kind == "annotator"]


def early_stopping(annotators: Sequence[Method]) -> pd.DataFrame:
    """What `annotate.stop_at` would have saved and changed, one row a method and `stop_at`, means over its repeats.

    Columns: method; samples, how many were drawn of each text; stop_at; saved, the share of them that need not have been
    drawn; change, of accuracy, against all samples. Empty where no method drew all samples of all texts.
    """
    rows = []
    for method in annotators:
        whole, asked = method.by_number("annotate/stop_{}_accuracy"), method.by_number("annotate/stop_{}_samples")
        for stop_at, accuracy in whole.items():
            rows.append({
                "method": method.name,
                "samples": max(whole),
                "stop_at": stop_at,
                "saved": float(1 - asked[stop_at].mean() / max(whole)),
                "change": float(np.mean(accuracy - [run.metrics["annotate/accuracy"] for run in method.runs])),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "samples", "stop_at", "saved", "change"])


def stopping_table(stops: pd.DataFrame) -> pd.DataFrame:
    """Rows of `early_stopping`, averaged over the methods, as text."""
    rows = []
    for (samples, stop_at), group in stops.groupby(["samples", "stop_at"]):
        low, high = group["saved"].min(), group["saved"].max()
        rows.append({
            "Samples": f"{samples}",
            "Stop at": f"{stop_at}",
            "Methods": f"{len(group)}",
            "Samples saved": f"{group['saved'].mean():.0%}" + (f" ({low:.0%} to {high:.0%})" if len(group) > 1 else ""),
            "Accuracy, points": _change(group["change"].mean()),
            "Worst method, points": _change(group["change"].min()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def figures(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[tuple[str, str, str, Figure]]:
    """(file name, title, caption, figure) of every figure that the annotators' metrics give grounds for."""
    annotators = of(methods)
    made = []
    if any(len(method.by_number("annotate/accuracy_samples_{}")) > 1 for method in annotators):
        made.append((
            "samples", "Accuracy by number of samples",
            "Majority of the first m samples, expected over the order in which they were drawn. Lines: mean over repeats; "
            "bands: from the lowest repeat to the highest. The legend has the order in which the lines end.",
            plots.samples(annotators),
        ))  # fmt: skip
    if any(method.by_number("annotate/accuracy_at_{}") for method in annotators):
        made.append((
            "agreement_coverage", "Accuracy by agreement, with coverage",
            "Texts with at least so many equal answers (≥), from all texts at the left to the strictest threshold at the "
            "right: their share and how many of them are labelled right. Mean over repeats; grey: the other methods.",
            plots.coverage(annotators),
        ))  # fmt: skip
    if any(method.mean_metric("annotate/tokens_per_text") for method in annotators):
        made.append((
            "cost", "Cost and accuracy",
            "Bars: 95% bootstrap interval of the mean over repeats. Dotted: the best accuracy to be had for the money; "
            "what lies below it is no cheaper and no better than something on it. The legend is sorted by accuracy.",
            plots.cost(annotators, estimates),
        ))  # fmt: skip
    stops = early_stopping(annotators)
    if len(stops):
        made.append((
            "early_stopping", "Early stopping",
            "Asking a text no further once stop_at answers agree (or none can any more), replayed on answers that were all "
            "drawn. Black: mean over the methods, with stop_at. An in-process LLM with prompt=direct reads all its samples "
            "off one distribution: there a sample saved saves no time.",
            plots.early_stopping(stops, annotators),
        ))  # fmt: skip
    return made


def _price(method: Method) -> str:
    dollars = method.mean_metric("cost/usd_per_1000_texts")
    return f", at ${amount(dollars)} for 1,000 texts" if dollars else ""


def _effects(annotators: Sequence[Method], tests: Sequence[Comparison]) -> list[str]:
    """What each setting changes, over all pairs of annotators that differ in nothing else."""
    named = {(test.family, test.a, test.b): test for test in tests}
    said = []
    for axis, pairs in pairs_by_setting(list(annotators)).items():
        by_values: dict[tuple[str, str], list[Comparison]] = {}
        for a, b in pairs:
            test = named[DIFFER_IN + axis, a.name, b.name]
            by_values.setdefault((str(value_of(a, axis)), str(value_of(b, axis))), []).append(test)
        for (a_value, b_value), group in by_values.items():
            told = f"{axis}={a_value} against {b_value}: "
            if len(group) == 1:
                said.append(told + f"{difference(group[0].accuracy)} points of accuracy, {p_is(group[0].p_holm)}.")
                continue
            gaps = [test.accuracy.difference for test in group]
            sure = sum(test.p_holm < 0.05 for test in group)
            said.append(
                told + f"{points(float(np.mean(gaps)))} of accuracy on average over {len(group)} pairs that differ in "
                f"nothing else ({points(min(gaps), unit='')} to {points(max(gaps), unit='')}); {sure} of the {len(group)} "
                "differences have p < 0.05 after Holm."
            )
    return said


def _more_samples(annotators: Sequence[Method], top: Method) -> list[str]:
    curves = {method.name: method.by_number("annotate/accuracy_samples_{}") for method in annotators}
    gains = [curve[max(curve)].mean() - curve[1].mean() for curve in curves.values() if len(curve) > 1]
    if not gains:
        return []
    own = curves[top.name]
    said = ""
    if len(own) > 1:
        said = f" {top.name} goes from {own[1].mean():.3f} to {own[max(own)].mean():.3f}."
    most = max(max(curve) for curve in curves.values() if curve)
    spread = f" on average ({points(min(gains), unit='')} to {points(max(gains), unit='')})" if len(gains) > 1 else ""
    return [f"From 1 sample to {most}, accuracy changes by {points(float(np.mean(gains)))}{spread}.{said}"]


def _agreement(top: Method) -> list[str]:
    accuracy, share = top.by_number("annotate/accuracy_at_{}"), top.by_number("annotate/kept_share_{}")
    if len(accuracy) < 2:
        return []
    strict = max(accuracy)
    return [
        f"Agreement: {top.name} is {accuracy[strict].mean():.3f} accurate on the "
        f"{share[strict].mean():.0%} of the texts with agreement ≥{strict}, and {accuracy[min(accuracy)].mean():.3f} on the "
        f"{share[min(accuracy)].mean():.0%} with ≥{min(accuracy)}."
    ]


def _stopping(stops: pd.DataFrame) -> list[str]:
    said = []
    for samples in sorted(stops["samples"].unique()):
        rows = stops[stops["samples"] == samples]
        mean = plots.means(rows)
        # Nothing is lost by stop_at = samples, so there is one at least.
        bearable = mean[mean["change"] > -BEARABLE]
        chosen = bearable.iloc[int(bearable["saved"].argmax())]
        worst = rows.loc[rows["stop_at"] == chosen["stop_at"], "change"].min()
        said.append(
            f"Early stopping: annotate.stop_at={chosen['stop_at']:.0f} of {samples} saves {chosen['saved']:.0%} of the samples "
            f"and changes accuracy by {_change(chosen['change'])} points (worst method: {_change(worst)}); it saves the most of "
            f"those that lose less than {100 * BEARABLE:g} points on average."
        )
    return said


def _repeats(annotators: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[str]:
    repeated = [method for method in annotators if len(method.runs) > 1]
    if not repeated:
        return []
    values = [set(column) for column in zip(*(str(run.seed).split("/") for m in repeated for run in m.runs), strict=True)]
    varied = " and ".join(name for name, found in zip(REPEATS, values, strict=True) if len(found) > 1)
    ranges = {method.name: np.ptp(estimates[method.name]["accuracy"].per_seed) for method in repeated}
    widest = max(ranges, key=lambda name: ranges[name])
    runs = sorted({len(method.runs) for method in repeated})
    return [
        f"Repeats ({varied}, {' or '.join(map(str, runs))} each): from the lowest to the highest, accuracy moves by "
        f"{points(float(np.mean(list(ranges.values()))), sign=False)} on average, at most by "
        f"{points(float(ranges[widest]), sign=False)} ({widest})."
    ]


def _change(difference: float) -> str:
    """In points, to two places: the changes of early stopping are small."""
    text = f"{100 * difference:+.2f}"
    return ("0.00" if float(text) == 0 else text).replace("-", "−")

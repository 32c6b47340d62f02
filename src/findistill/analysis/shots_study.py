"""What a study of few-shot prompts found, in sentences and figures, beside the fine-tuned models of the same study.

A method of kind `fewshot` is an LLM with its prompt, number of demonstrations and way to choose them; its seeds drew other
demonstrations. Without demonstrations, and with the nearest, nothing is drawn: such a method has one run.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from findistill.analysis import shots_plots as plots
from findistill.analysis.comparisons import (
    AGAINST_CLASSIFIERS,
    AGAINST_TUNED,
    OWN_PROMPTS,
    SHOTS_DIFFER_IN,
    Comparison,
    best,
    value_of,
)
from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import Method, Run, setting
from findistill.analysis.words import against, amount, points, value

MOST = 12  # few-shot methods drawn one by one beside the others
WEAK = 0.995  # coverage below which it is told


def of(methods: Sequence[Method]) -> list[Method]:
    """The few-shot methods among `methods`."""
    return [method for method in methods if method.kind == "fewshot"]


def on_common_rows(runs: Sequence[Run]) -> list[Run]:
    """The runs with each data set's predictions cut to the rows that its few-shot jobs asked (`fewshot.limit`).

    Nothing is cut of data without few-shot jobs, or where some run lacks such a row. Metrics of the test set that were
    recorded on all rows go with the rows.
    """
    ids: dict[str, list[set[str]]] = {}
    fewest: dict[str, int] = {}
    for run in runs:
        name = str(setting(run.config, "data.name"))
        ids.setdefault(name, []).append(set(run.predictions["id"].astype(str)))
        if run.kind == "fewshot":
            fewest[name] = min(fewest.get(name, len(run.predictions)), len(run.predictions))
    common = {name: set.intersection(*ids[name]) for name in fewest}
    return [
        _cut(run, common[name], fewest[name]) if (name := str(setting(run.config, "data.name"))) in common else run
        for run in runs
    ]


def _cut(run: Run, common: set[str], fewest: int) -> Run:
    if len(common) < fewest or len(run.predictions) == fewest:
        return run
    kept = run.predictions[run.predictions["id"].astype(str).isin(common)]
    return replace(run, predictions=kept, metrics={key: v for key, v in run.metrics.items() if not key.startswith("test/")})


def findings(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]], tests: Sequence[Comparison]) -> list[str]:
    """The main results as sentences, worked out from the numbers."""
    asked = of(methods)
    top, _ = best(asked)
    assert top is not None
    one = estimates[top.name]
    said = [f"Best few-shot: {top.name}, accuracy {value(one['accuracy'])}, macro F1 {value(one['macro_f1'])}{_price(top)}."]
    said += [against(test) for test in tests if test.family == AGAINST_TUNED]
    said += _tuned(tests)
    said += [against(test) for test in tests if test.family == AGAINST_CLASSIFIERS]
    said += _more_shots(asked, estimates)
    said += _selections(tests, methods)
    said += _seeds(asked, estimates)
    said += _silent(asked)
    spent, priced = plots.spending(methods)
    if len(spent) > 1:
        front = plots.pareto(spent, estimates)
        unit = "US dollars" if priced else "seconds"
        told = ", ".join(f"{name} ({amount(spent[name])})" for name in front)
        said.append(f"None is both cheaper and better than these ({unit} for 1,000 predictions): {told}.")
    if len(asked) > 1:
        said.append("“Best” was chosen by macro F1 on the very rows that it is scored on: that flatters it.")
    return said


def figures(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[tuple[str, str, str, Figure]]:
    """(file name, title, caption, figure) of every figure that the runs give grounds for."""
    asked, shown = of(methods), _shown(methods, estimates)
    made = []
    if len({plots.shots(method) for method in asked}) > 1:
        made.append((
            "shots", "Accuracy by number of demonstrations",
            "k counts all demonstrations of a prompt, not those of a label. Lines: mean over seeds; bands: from the lowest "
            "seed to the highest; bars: 95% bootstrap interval of the mean over the test rows. The nearest demonstrations "
            "and none at all do not depend on the seed. Level: the same model fine-tuned. Dashed: the majority of the k nearest "
            "labelled texts, without an LLM.",
            plots.by_shots(methods, estimates),
        ))  # fmt: skip
    left_out = "Of each LLM: without demonstrations, and with those that served it best. " if len(shown) < len(methods) else ""
    if asked and len(methods) > 1:
        made.append((
            "tuned_and_shots", "Fine-tuned and few-shot",
            f"The same test rows for all. {left_out}Bars that overlap do not mean that methods are equal: the paired tests "
            "compare them on the same rows.",
            plots.bars(shown, estimates),
        ))  # fmt: skip
    spent, priced = plots.spending(shown)
    if asked and len(spent) > 1:
        what = "US dollars" if priced else "Seconds, as not all methods have a price (evaluate.usd_per_hour, llm.price)"
        made.append((
            "cost", "Cost and accuracy",
            f"{what}; in batches, without loading the model. {left_out}Bars: 95% bootstrap interval of the mean over seeds. "
            "Rings and the dotted line: the best accuracy to be had for the cost. The legend is sorted by accuracy.",
            plots.cost(shown, estimates),
        ))  # fmt: skip
    return made


def _shown(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[Method]:
    """All methods or, where the few-shot ones are many, of each LLM the one without demonstrations and the best with them."""
    if len(of(methods)) <= MOST:
        return list(methods)
    kept: set[str] = set()
    for lines in plots.panels_of(methods).values():
        own = [member for members in lines.values() for member in members]
        kept |= {member.name for member in own if not plots.shots(member)}
        if some := [member for member in own if plots.shots(member)]:
            kept.add(max(some, key=lambda member: estimates[member.name]["accuracy"].mean).name)
    return [method for method in methods if method.kind != "fewshot" or method.name in kept]


def _price(method: Method) -> str:
    dollars, speed = method.mean_metric("cost/usd_per_1000_texts"), method.mean_metric("throughput/texts_per_s")
    if dollars:
        return f", at ${amount(dollars)} for 1,000 predictions"
    return f", {amount(1000 / speed)} s for 1,000 predictions" if speed else ""


def _tuned(tests: Sequence[Comparison]) -> list[str]:
    said = []
    own = [test for test in tests if test.family == OWN_PROMPTS]
    for name in dict.fromkeys(test.a for test in own):
        found = [test for test in own if test.a == name]
        gaps = [test.accuracy.difference for test in found]
        ahead = sum(test.p_holm < 0.05 and test.accuracy.difference > 0 for test in found)
        said.append(
            f"{name}: better than {ahead} of the {len(found)} ways to prompt the same model with p < 0.05 after Holm, the "
            f"differences are {points(min(gaps), unit='')} to {points(max(gaps))} of accuracy."
        )
    return said


def _more_shots(asked: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[str]:
    said = []
    for model, lines in plots.panels_of(asked).items():
        for series, members in lines.items():
            if len(members) > 1:
                first, last = members[0], members[-1]
                means = {plots.shots(member): estimates[member.name]["accuracy"].mean for member in members}
                said.append(
                    f"{model}, {series}: from {plots.shots(first)} to {plots.shots(last)} demonstrations accuracy goes from "
                    f"{means[plots.shots(first)]:.3f} to {means[plots.shots(last)]:.3f}; it is highest at "
                    f"{max(means, key=lambda k: means[k])}."
                )
    return said


def _selections(tests: Sequence[Comparison], methods: Sequence[Method]) -> list[str]:
    by_name = {method.name: method for method in methods}
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for test in tests:
        if test.family == f"{SHOTS_DIFFER_IN}shots.selection":
            chosen = (str(value_of(by_name[name], "shots.selection")) for name in (test.a, test.b))
            pairs.setdefault((next(chosen), next(chosen)), []).append(test)
    said = []
    for (a, b), found in pairs.items():
        gaps = [test.accuracy.difference for test in found]
        sure = sum(test.p_holm < 0.05 for test in found)
        said.append(
            f"shots.selection={a} against {b}: {points(float(np.mean(gaps)))} of accuracy on average over {len(found)} "
            f"{'pair that differs' if len(found) == 1 else 'pairs that differ'} in nothing else; {sure} of the "
            f"{len(found)} with p < 0.05 after Holm."
        )
    return said


def _seeds(asked: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[str]:
    ranges = {m.name: float(np.ptp(estimates[m.name]["accuracy"].per_seed)) for m in asked if len(m.runs) > 1}
    if not ranges:
        return []
    widest = max(ranges, key=lambda name: ranges[name])
    return [
        f"Which demonstrations are drawn moves accuracy by {points(float(np.mean(list(ranges.values()))), sign=False)} from the "
        f"lowest seed to the highest on average, at most by {points(ranges[widest], sign=False)} ({widest})."
    ]


def _silent(asked: Sequence[Method]) -> list[str]:
    shares = {method.name: float((method.predicted >= 0).mean()) for method in asked}
    least = min(shares, key=lambda name: shares[name])
    if shares[least] >= WEAK:
        return []
    return [f"Answers without a label count as wrong: {least} names one for {shares[least]:.1%} of the texts."]

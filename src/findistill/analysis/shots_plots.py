"""Figures of a study of few-shot prompts beside fine-tuned models; `methods` are those of one test set."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from findistill.analysis.annotator_plots import legend_height, looks, plain_log_ticks, side_legend
from findistill.analysis.intervals import Estimate
from findistill.analysis.methods import Method, setting
from findistill.analysis.plots import BESIDE_GREEN, BLUE, GREEN, GREY, MARKERS, blank, folded, styled

PANELS = 3  # in a row
RING = "none is cheaper and better"
GROUPS = {"fine-tuned": GREEN, "few-shot": BLUE, "baseline": GREY}  # in the order in which bars are grouped


def shots(method: Method) -> int:
    """How many demonstrations a prompt shows."""
    return int(setting(method.config, "shots.k"))


def group(method: Method) -> str:
    return {"fewshot": "few-shot", "baseline": "baseline"}.get(method.kind, "fine-tuned")


@styled
def by_shots(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy by the number of demonstrations: a panel a model, smallest first, and a line a way to choose them.

    Bands go from the lowest seed to the highest. Level: the same model fine-tuned; dashed: the nearest-neighbour vote with
    as many texts, each where it is there.
    """
    panels = panels_of(methods)
    names = list(dict.fromkeys(series for lines in panels.values() for series in lines))
    columns = min(PANELS, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(10 if len(panels) > 1 else 7.5, 1.0 + 3.4 * rows)
    every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    asked = {shots(method) for method in methods if method.kind == "fewshot"}
    votes = {int(k): m for m in methods if m.kind == "baseline" and (k := setting(m.config, "k")) in asked}
    for axes, (model, lines) in zip(every, panels.items(), strict=False):
        for series, members in lines.items():
            place = names.index(series)
            x = [shots(member) for member in members]
            found = [estimates[member.name]["accuracy"] for member in members]
            colour, shift = BESIDE_GREEN[place % len(BESIDE_GREEN)], 0.012 * max(asked) * (place - (len(names) - 1) / 2)
            axes.fill_between(
                x, [min(f.per_seed) for f in found], [max(f.per_seed) for f in found], color=colour, alpha=0.15, lw=0
            )
            axes.plot(x, [f.mean for f in found], color=colour, marker=MARKERS[place % len(MARKERS)], markersize=5, label=series)
            for at, one in zip(x, found, strict=True):
                axes.vlines(at + shift, one.low, one.high, color=colour, lw=1, alpha=0.7)
        tuned = [m for m in methods if m.kind == "qlora" and setting(m.config, "llm.name") == model]
        for at, method in enumerate(tuned):
            label = None if at else "the same model, fine-tuned"
            axes.axhline(estimates[method.name]["accuracy"].mean, color=GREEN, lw=1.4, label=label)
        if votes:
            axes.plot(
                sorted(votes), [estimates[votes[k].name]["accuracy"].mean for k in sorted(votes)], color=GREY, lw=1.2,
                linestyle="--", marker="x", markersize=5, label="nearest-neighbour vote, no LLM",
            )  # fmt: skip
        axes.set_title(model)
        axes.set_xticks(sorted(asked))
        axes.tick_params(labelbottom=True)
    for axes in every[len(panels) :]:
        axes.set_visible(False)
    for axes in every[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("demonstrations in the prompt")
    for axes in every[::columns]:
        axes.set_ylabel("accuracy")
    figure.suptitle(f"Accuracy by demonstrations, {methods[0].test_set}", fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    # of all panels: not every model has the same lines
    told = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    told["95% interval over test rows"] = Line2D([], [], color="black", lw=1, alpha=0.7)
    figure.legend(told.values(), told.keys(), loc="outside lower center", ncols=3)
    return figure


@styled
def bars(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy and macro F1 as bars with 95% intervals: fine-tuned models, few-shot prompts, baselines, each best first."""
    order = list(GROUPS)
    ordered = sorted(methods, key=lambda method: (-order.index(group(method)), estimates[method.name]["accuracy"].mean))
    names = [folded(method.name, 40) for method in ordered]
    lines = max(len(name.splitlines()) for name in names)
    figure = blank(10, 1.5 + (0.3 + 0.15 * (lines - 1)) * len(ordered))
    for axes, key, title in zip(
        figure.subplots(1, 2, sharey=True), ("accuracy", "macro_f1"), ("Accuracy", "Macro F1"), strict=True
    ):
        for y, method in enumerate(ordered):
            one = estimates[method.name][key]
            axes.barh(y, one.mean, color=GROUPS[group(method)], alpha=0.75, height=0.7)
            axes.errorbar(one.mean, y, xerr=[[one.mean - one.low], [one.high - one.mean]], color="black", lw=1, capsize=2.5)
            axes.annotate(f"{one.mean:.3f}", (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.set(title=title, xlabel="with 95% interval over test rows", xlim=(0, 1))
        axes.set_yticks(range(len(ordered)), names)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.grid(axis="y", visible=False)
    there = [name for name in GROUPS if any(group(method) == name for method in methods)]
    handles = [Patch(color=GROUPS[name], alpha=0.75, label=name) for name in there]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@styled
def cost(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy with its 95% interval against the cost of 1,000 predictions, or the seconds they take; the best are joined.

    Methods without a speed (baselines) are left out.
    """
    spent, priced = spending(methods)
    shown = [method for method in methods if method.name in spent]
    figure = blank(10, max(4.2, 1.2 + legend_height(shown)))
    axes = figure.subplots()
    for name, look in looks(shown).items():
        one = estimates[name]["accuracy"]
        axes.vlines(spent[name], one.low, one.high, color=look["color"], alpha=0.35, lw=3)
        axes.plot(spent[name], one.mean, markersize=8, label=folded(name, 34), **{**look, "linestyle": ""})
    front = [(spent[name], estimates[name]["accuracy"].mean) for name in pareto(spent, estimates)]
    axes.step(*np.array(front).T, where="post", color=GREY, lw=1, linestyle=":", zorder=1)
    axes.plot(*np.array(front).T, "o", markersize=15, markerfacecolor="none", color="black", lw=0, label=RING)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    plain_log_ticks(axes)
    axes.set(title=f"Cost and accuracy, {methods[0].test_set}", ylabel="accuracy with 95% interval over test rows")
    axes.set_xlabel("US dollars for 1,000 predictions (log scale)" if priced else "seconds for 1,000 predictions (log scale)")
    side_legend(figure, axes, last=lambda line: -1.0 if line.get_label() == RING else float(line.get_ydata()[-1]))
    return figure


def spending(methods: Sequence[Method]) -> tuple[dict[str, float], bool]:
    """Method -> US dollars for 1,000 predictions and True, or, unless all have a price, the seconds they take and False."""
    seconds = {method.name: 1000 / speed for method in methods if (speed := method.mean_metric("throughput/texts_per_s"))}
    dollars = {method.name: price for method in methods if (price := method.mean_metric("cost/usd_per_1000_texts"))}
    priced = bool(dollars) and seconds.keys() <= dollars.keys()
    return (dollars, True) if priced else (seconds, False)


def pareto(spent: dict[str, float], estimates: dict[str, dict[str, Estimate]]) -> list[str]:
    """The methods that none is both cheaper and better than, cheapest first."""
    front: list[str] = []
    for name in sorted(spent, key=lambda name: (spent[name], -estimates[name]["accuracy"].mean)):
        if not front or estimates[name]["accuracy"].mean > estimates[front[-1]]["accuracy"].mean:
            front.append(name)
    return front


def panels_of(methods: Sequence[Method]) -> dict[str, dict[str, list[Method]]]:
    """Model -> way to choose demonstrations -> its methods by k; the prompt without any begins every line of its model.

    Models come by size; what else differs than model, k and choice (the prompt, how labels are read) is part of the line.
    """
    asked = sorted((m for m in methods if m.kind == "fewshot"), key=lambda m: m.mean_metric("model/parameters") or np.inf)
    models = list(dict.fromkeys(str(setting(method.config, "llm.name")) for method in asked))
    found: dict[str, dict[str, list[Method]]] = {}
    for model in models:
        own = [method for method in asked if str(setting(method.config, "llm.name")) == model]
        lines: dict[str, list[Method]] = {}
        for method in sorted(own, key=shots):
            if shots(method):
                lines.setdefault(_series(method, asked, str(setting(method.config, "shots.selection"))), []).append(method)
        for method in (method for method in own if not shots(method)):
            told = [line for line in lines if line.endswith(_series(method, asked, ""))]
            for line in told:
                lines[line].insert(0, method)
            if not told:
                lines[_series(method, asked, "no demonstrations").strip()] = [method]
        found[model] = lines
    return found


def _series(method: Method, asked: Sequence[Method], selection: str) -> str:
    keys = ("prompt.name", "fewshot.scoring", "annotate.samples", "annotate.calibration")
    varied = [key for key in keys if len({repr(setting(each.config, key)) for each in asked}) > 1]
    told = {key: str(setting(method.config, key)) for key in varied}
    return ", ".join([selection, *(one if key == "prompt.name" else f"{key.split('.')[1]}={one}" for key, one in told.items())])

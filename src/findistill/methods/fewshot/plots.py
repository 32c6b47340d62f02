"""Figures that compare few-shot prompts with fine-tuned models; `methods` are those of one test set."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from findistill.report import style
from findistill.report.methods import Method, setting
from findistill.report.parts import BASELINE
from findistill.stats.intervals import Estimate

KIND, TUNED = "fewshot", "qlora"
PANELS = 3  # per row


def shots(method: Method) -> int:
    """How many demonstrations a prompt shows."""
    return int(setting(method.config, "shots.k"))


def by_shots(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> Figure:
    """Accuracy by the number of demonstrations: one panel per model, smallest first, and one line per way to select them.

    Bands span the seeds. If available, a horizontal line shows the same model fine-tuned, and a dashed line the
    nearest-neighbour vote with as many texts.
    """
    lines_of = panels_of(methods)
    names = list(dict.fromkeys(series for lines in lines_of.values() for series in lines))
    figure = style.blank(10 if len(lines_of) > 1 else 7.5, 1.0 + 3.4 * -(-len(lines_of) // PANELS))
    every = style.panels(figure, len(lines_of), PANELS)
    numbers = sorted({shots(method) for method in methods if method.kind == KIND})
    votes = {int(k): m for m in methods if m.kind == BASELINE and (k := setting(m.config, "k")) in numbers}
    for axes, (model, lines) in zip(every, lines_of.items(), strict=True):
        for series, members in lines.items():
            place = names.index(series)
            look = style.look_of(place, style.BESIDE_GREEN)
            x = [shots(member) for member in members]
            own = [estimates[member.name]["accuracy"] for member in members]
            style.line_with_band(axes, x, [one.per_seed for one in own], look, series)
            shift = 0.012 * max(numbers) * (place - (len(names) - 1) / 2)
            axes.vlines([at + shift for at in x], [one.low for one in own], [one.high for one in own], color=look["color"], lw=1)
        tuned = [m for m in methods if m.kind == TUNED and setting(m.config, "llm.name") == model]
        for at, method in enumerate(tuned):
            label = None if at else "the same model, fine-tuned"
            style.reference_line(axes, estimates[method.name]["accuracy"].mean, label, colour=style.GREEN, linestyle="-")
        if votes:
            levels = [estimates[votes[k].name]["accuracy"].mean for k in sorted(votes)]
            label = "nearest-neighbour vote, no LLM"
            axes.plot(sorted(votes), levels, color=style.GREY, lw=1.2, linestyle="--", marker="x", markersize=5, label=label)
        axes.set(title=model, xticks=numbers, xlabel="demonstrations in the prompt")
    for axes in every[::PANELS]:
        axes.set_ylabel("accuracy")
    style.heading(figure, f"Accuracy by demonstrations, {methods[0].test_set}")
    rows = {"95% interval": Line2D([], [], color="black", lw=1)}
    style.shared_legend(figure, every, columns=3, **rows)
    return figure


def spending(methods: Sequence[Method]) -> tuple[dict[str, float], str]:
    """Method -> US dollars per 1,000 predictions or, unless all have a price, seconds; and the unit."""
    seconds = {method.name: 1000 / speed for method in methods if (speed := method.mean_metric("throughput/texts_per_s"))}
    dollars = {method.name: price for method in methods if (price := method.mean_metric("cost/usd_per_1000_texts"))}
    if dollars and seconds.keys() <= dollars.keys():
        return dollars, "US dollars for 1,000 predictions"
    return seconds, "seconds for 1,000 predictions"


def panels_of(methods: Sequence[Method]) -> dict[str, dict[str, list[Method]]]:
    """Model -> way to select demonstrations -> its methods by k; the zero-shot prompt starts every line of its model.

    Models are sorted by size. Other settings that vary (the prompt, how labels are read) give separate lines.
    """
    prompted = sorted((m for m in methods if m.kind == KIND), key=lambda m: m.mean_metric("model/parameters") or np.inf)
    models = list(dict.fromkeys(str(setting(method.config, "llm.name")) for method in prompted))
    panels: dict[str, dict[str, list[Method]]] = {}
    for model in models:
        lines = panels[model] = {}
        own = [method for method in prompted if str(setting(method.config, "llm.name")) == model]
        for method in sorted(own, key=shots):
            if shots(method):
                lines.setdefault(_series(method, prompted, str(setting(method.config, "shots.selection"))), []).append(method)
        for method in (method for method in own if not shots(method)):
            matching = [line for line in lines if line.endswith(_series(method, prompted, ""))]
            for line in matching:
                lines[line].insert(0, method)
            if not matching:
                lines[_series(method, prompted, "no demonstrations").strip()] = [method]
    return panels


def _series(method: Method, prompted: Sequence[Method], selection: str) -> str:
    keys = ("prompt.name", "fewshot.scoring", "annotate.samples", "annotate.calibration")
    varied = [key for key in keys if len({repr(setting(each.config, key)) for each in prompted}) > 1]
    values = {key: str(setting(method.config, key)) for key in varied}
    return ", ".join([selection, *(one if key == "prompt.name" else f"{key.split('.')[1]}={one}" for key, one in values.items())])

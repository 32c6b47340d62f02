"""Charts have the values, intervals, names and scales of the figures that they are read from."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from findistill.report import budgets, plots, style
from findistill.report.interactive import chart
from findistill.stats.intervals import Estimate


def estimate(mean: float, *seeds: float) -> Estimate:
    return Estimate(mean, 0.01, mean - 0.02, mean + 0.02, seeds or (mean,))


def scores(mean: float, *seeds: float) -> dict[str, Estimate]:
    return {"accuracy": estimate(mean, *seeds), "macro_f1": estimate(mean - 0.1)}


def drawn(figure: Figure, folder: Path) -> dict[str, Any]:
    """The options after the figure was written, as a page has them."""
    style.save(figure, folder / "figure")
    options = chart(figure)
    assert options is not None
    return json.loads(json.dumps(options, allow_nan=False))


def texts(options: dict[str, Any], name: str, panel: int = 0) -> list[str]:
    of_panel = [one for one in options["series"] if one["name"] == name and one["xAxisIndex"] == panel]
    return [point["text"] for one in of_panel for point in one["data"] if "text" in point]


def test_each_point_of_a_curve_has_its_value_and_interval(tmp_path: Path) -> None:
    curves = {"student": [(100, scores(0.7)), (2000, scores(0.826))], "TF-IDF": [(100, scores(0.663)), (2000, scores(0.78))]}
    options = drawn(budgets.figure_of(curves, dashed={"TF-IDF"}), tmp_path)
    assert texts(options, "student") == [
        "human labels 100: accuracy 0.700 [0.680, 0.720]", "human labels 2,000: accuracy 0.826 [0.806, 0.846]",
    ]  # fmt: skip
    assert texts(options, "TF-IDF", panel=1)[1] == "human labels 2,000: macro F1 0.680 [0.660, 0.700]"
    assert options["legend"]["data"] == ["student", "TF-IDF"]
    assert [axis["type"] for axis in options["xAxis"]] == ["log", "log"]
    assert options["xAxis"][0]["texts"] == ["100", "2,000"] and options["xAxis"][0]["axisLabel"]["customValues"] == [100, 2000]
    lines = {one["name"]: one for one in options["series"] if one["type"] == "line" and not one.get("silent")}
    assert (lines["student"]["lineStyle"]["type"], lines["TF-IDF"]["lineStyle"]["type"]) == ("solid", "dashed")
    intervals = [one for one in options["series"] if one.get("silent") and one["xAxisIndex"] == 0]
    assert {one["name"] for one in intervals} == {"student", "TF-IDF"}, "an interval is hidden with its method"
    low, high, gap = intervals[0]["data"][:3]
    assert (low["value"][1], high["value"][1]) == (0.68, 0.72) and gap["value"] == ["-", "-"]


def test_marks_say_their_row_and_are_grouped_as_in_the_legend(tmp_path: Path) -> None:
    estimates = {"CLS ≥5": scores(0.7, 0.69, 0.71), "CLS ≥8": scores(0.75, 0.74, 0.76), "TF-IDF": scores(0.65)}
    groups = {"CLS ≥5": "student", "CLS ≥8": "student", "TF-IDF": "baseline"}
    figure = plots.comparison([SimpleNamespace(name=name) for name in estimates], estimates, groups)  # type: ignore[misc]
    options = drawn(figure, tmp_path)
    assert texts(options, "student") == ["CLS ≥5: accuracy 0.700 [0.680, 0.720]", "CLS ≥8: accuracy 0.750 [0.730, 0.770]"]
    assert "CLS ≥8: accuracy 0.760" in texts(options, "one run")
    assert options["yAxis"][0]["texts"] == ["TF-IDF", "CLS ≥5", "CLS ≥8"]
    assert options["yAxis"][1]["texts"] == ["", "", ""], "the right panel leaves the names to the left one"


def test_levels_rings_bands_and_long_lines(tmp_path: Path) -> None:
    figure, axes = style.canvas(4, xlabel="recall", ylabel="precision", title="One")
    at = np.linspace(0, 1, 201)
    axes.plot(at, 1 - at / 2, color=style.BLUE, label="long\nname")
    style.line_with_band(axes, [0.2, 0.8], [[0.4, 0.6], [0.5, 0.5]], {"color": style.GREEN, "marker": "s"}, "repeated")
    style.reference_line(axes, 0.3, "teacher", colour=style.ORANGE)
    axes.plot([0.2], [0.5], "o", markerfacecolor="none", color="black", label="front")
    axes.set_xlim(1, 0)
    style.side_legend(figure, axes)
    options = drawn(figure, tmp_path)
    series = {one["name"]: one for one in options["series"] if not one.get("silent")}
    assert "text" not in series["long name"]["data"][0] and len(series["long name"]["data"]) == 201
    assert texts(options, "teacher") == ["precision 0.300"] * 2
    assert [point["value"] for point in series["teacher"]["data"]] == [[1, 0.3], [0, 0.3]]
    assert series["front"]["itemStyle"]["color"] == "transparent"
    [band] = [one for one in options["series"] if one.get("silent")]
    assert band["name"] == "repeated" and [0.2, 0.4] in [point["value"] for point in band["data"]]
    assert options["xAxis"][0]["inverse"] and not options["yAxis"][0]["inverse"]
    assert options["legend"]["orient"] == "vertical" and options["title"][0]["text"] == "One"


def test_figures_that_state_their_numbers_have_no_chart() -> None:
    assert chart(plots.confusion_matrices([("a", np.ones((2, 3)))], ["x", "y"])) is None
    figure, axes = style.canvas(3)
    axes.bar([1, 2], [3, 4])
    assert chart(figure) is None

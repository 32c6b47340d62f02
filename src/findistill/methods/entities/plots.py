"""Figures of models that mark entities."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from findistill.config.overrides import flatten
from findistill.report import style
from findistill.report.methods import deciding
from findistill.stats.intervals import Estimate

if TYPE_CHECKING:  # the report imports this module
    from findistill.methods.entities.report import Marker

SIZES = ("data.limit", "data.labelled")  # settings that determine the number of training texts


def comparison(scores: Mapping[str, Estimate], test_set: str) -> Figure:
    """Exact F1 of each model, one row each, the best on top."""
    names = sorted(scores, key=lambda name: scores[name].mean)
    figure, axes = style.canvas(1.4 + 0.42 * len(names), title=f"Exact F1, {test_set}", xlabel="exact F1 with 95% interval")
    for row, name in enumerate(names):
        one = scores[name]
        axes.hlines(row, one.low, one.high, color=style.BLUE, lw=3, alpha=0.35)
        axes.plot(one.per_seed, [row] * len(one.per_seed), "|", color=style.GREY, markersize=8)
        axes.plot(one.mean, row, "o", color=style.BLUE, markersize=7)
    axes.set_yticks(range(len(names)), [style.folded(name, 40) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(max(0.0, min(one.low for one in scores.values()) - 0.05), 1.0)
    axes.grid(axis="y", visible=False)
    return figure


def curves(markers: "Sequence[Marker]") -> "dict[str, list[Marker]]":
    """Models that differ only in the number of training texts, fewest first, by model and source."""
    groups: dict[str, list[Marker]] = {}
    for marker in markers:
        if marker.mean_metric("data/kept") is not None:
            same = {key: value for key, value in flatten(deciding(marker.config)).items() if key not in SIZES}
            groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(marker)
    lines: dict[str, list[Marker]] = {}
    for members in groups.values():
        if len({_texts(member) for member in members}) > 1:
            name = members[0].family
            number = sum(other == name or other.startswith(f"{name} #") for other in lines)
            lines[f"{name} #{number + 1}" if number else name] = sorted(members, key=_texts)
    return lines


def _texts(marker: "Marker") -> float:
    return marker.mean_metric("data/kept") or 0.0


def by_texts(lines: "Mapping[str, Sequence[Marker]]", estimates: Mapping[str, Mapping[str, Estimate]], test_set: str) -> Figure:
    """Exact F1 by the number of training texts, one line per model and source."""
    figure, axes = style.canvas(5.2, title=f"Labels and exact F1, {test_set}", xlabel="training texts (log scale)")
    for place, (name, members) in enumerate(lines.items()):
        look: dict[str, Any] = style.look_of(place) | {"linestyle": "-"}
        own = [estimates[member.name]["f1"] for member in members]
        x = [_texts(member) * 1.02 ** (place - (len(lines) - 1) / 2) for member in members]
        axes.plot(x, [one.mean for one in own], label=style.folded(name, 40), markersize=6, **look)
        for at, one in zip(x, own, strict=True):
            axes.vlines(at, one.low, one.high, color=look["color"], lw=2.5, alpha=0.35)
    axes.set_ylabel("exact F1 with 95% interval")
    axes.set_xscale("log")
    style.plain_log_ticks(axes)
    style.side_legend(figure, axes)
    return figure

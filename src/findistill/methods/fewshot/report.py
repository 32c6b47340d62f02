"""The report part of `stage=fewshot`: prompts with k demonstrations beside fine-tuned models on the same rows.

A method is an LLM with its prompt, number of demonstrations and way to select them; its seeds draw different demonstrations.
Zero-shot and nearest-neighbour prompts draw nothing, so such a method has one run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from findistill.core.step import load
from findistill.methods.annotate.report import annotator_settings
from findistill.methods.annotate.steps import shots_settings
from findistill.methods.fewshot import plots
from findistill.report.comparisons import best, setting_families
from findistill.report.methods import Method, Run, setting
from findistill.report.parts import BASELINE, Family, Part, Picture, Results, Table, Wording
from findistill.report.plots import comparison
from findistill.report.style import cost_and_score
from findistill.report.tables import front_table
from findistill.stats.intervals import Estimate

WORDING = Wording(__package__)
MOST = 12  # few-shot methods up to which all are plotted
DIFFER_IN = "few-shot methods that differ in "
AGAINST_NONE = "demonstrations against none"
AGAINST_OTHERS = "best few-shot method against the others"


class FewshotPart(Part):
    """With `fewshot.limit`, few-shot prompts and all other methods are scored on the same sample of the test rows."""

    def name(self, config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
        shots = config["shots"]
        selection = f" {shots['selection']}" if shots["k"] else ""
        return f"{config['llm']['name']} {config['prompt']['name']} k={shots['k']}{selection}"

    def identity(self, config: dict[str, Any]) -> tuple[int | str | None, dict[str, Any]]:
        settings = annotator_settings(config, "fewshot", "evaluate")
        settings["shots"] = {"source": settings["shots"]["source"], **shots_settings(settings["shots"])}
        seed, order = settings["shots"].pop("seed", None), settings["shots"].pop("order_seed", None)
        return (seed if order is None else f"{seed}/{order}"), settings

    def prepare(self, runs: list[Run]) -> list[Run]:
        return on_common_rows(runs)

    def families(self, methods: Sequence[Method]) -> Iterator[Family]:
        own = self.own(methods)
        yield Family(AGAINST_NONE, _against_none(own), lambda a, _: f"k={plots.shots(a)} against 0")
        yield from (family for family in setting_families(DIFFER_IN, own) if family.name != f"{DIFFER_IN}shots.k")
        if top := best(own)[0]:
            yield Family(AGAINST_OTHERS, [(top, method) for method in methods if method.kind != self.kind])

    def tables(self, results: Results) -> Iterator[Table]:
        spent, unit = plots.spending(results.methods)
        if len(spent) > 1:
            yield front_table(spent, unit, results.estimates)

    def pictures(self, results: Results) -> Iterator[Picture]:
        methods, estimates = results.methods, results.estimates
        own, selection = self.own(methods), selected(methods, estimates)
        if len({plots.shots(method) for method in own}) > 1:
            yield WORDING.picture("shots", plots.by_shots(methods, estimates))
        omitted = "Shown for each LLM: zero-shot, and the best with demonstrations. " if len(selection) < len(methods) else ""
        if len(methods) > 1:
            order = ("fine-tuned", "few-shot", BASELINE)
            kinds = {self.kind: "few-shot", BASELINE: BASELINE}
            groups = {method.name: kinds.get(method.kind, "fine-tuned") for method in selection}
            groups = dict(sorted(groups.items(), key=lambda entry: order.index(entry[1])))
            yield WORDING.picture("tuned_and_shots", comparison(selection, estimates, groups, bars=True), omitted=omitted)
        spent, unit = plots.spending(selection)
        if len(spent) > 1:
            scores = {name: estimates[name]["accuracy"] for name in spent}
            yield WORDING.picture("cost", cost_and_score(spent, scores, unit, results.test_set), omitted=omitted)

    def notes(self, methods: Sequence[Method]) -> list[str]:
        return WORDING.notes()


def on_common_rows(runs: Sequence[Run]) -> list[Run]:
    """The runs, with each data set's predictions restricted to the rows of its few-shot jobs (`fewshot.limit`).

    Predictions stay complete for data without few-shot jobs, or if some run lacks such a row. Test metrics that were recorded
    on all rows are dropped with the rows, except for a model that was trained on test texts: these are counted again.
    """
    of_data: dict[str, list[Run]] = {}
    for run in runs:
        of_data.setdefault(str(setting(run.config, "data.name")), []).append(run)
    common: dict[str, set[str]] = {}
    for name, group in of_data.items():
        ids = set.intersection(*(set(run.predictions["id"].astype(str)) for run in group))
        fewest = min((len(run.predictions) for run in group if run.kind == PART.kind), default=None)
        if fewest is not None and len(ids) >= fewest:
            common[name] = ids
    return [_cut(run, common.get(str(setting(run.config, "data.name")))) for run in runs]


def _cut(run: Run, ids: set[str] | None) -> Run:
    if ids is None or len(run.predictions) == len(ids):
        return run
    predictions = run.predictions[run.predictions["id"].astype(str).isin(ids)]
    metrics = {key: value for key, value in run.metrics.items() if not key.startswith("test/")}
    if "test/learnt_from" in run.metrics and run.folder:
        model = setting(run.config, "evaluate.model") or run.folder
        metrics |= load("findistill.methods.scoring:overlap")(model, predictions, "test")
    return replace(run, predictions=predictions, metrics=metrics)


def _against_none(own: Sequence[Method]) -> list[tuple[Method, Method]]:
    """Pairs of a method with demonstrations and the otherwise equal one without."""
    bare = [method for method in own if not plots.shots(method)]
    of_shots = {"shots.k", "shots.selection"}
    return [(a, b) for a in own for b in bare if a is not b and set(a.differs_in(b)) <= of_shots]


def selected(methods: Sequence[Method], estimates: Mapping[str, Mapping[str, Estimate]]) -> list[Method]:
    """All methods or, beyond `MOST` few-shot ones, only the zero-shot ones and the best with demonstrations of each LLM."""
    if len(PART.own(methods)) <= MOST:
        return list(methods)
    selection: set[str] = set()
    for lines in plots.panels_of(methods).values():
        own = [member for members in lines.values() for member in members]
        selection |= {member.name for member in own if not plots.shots(member)}
        if some := [member for member in own if plots.shots(member)]:
            selection.add(max(some, key=lambda member: estimates[member.name]["accuracy"].mean).name)
    return [method for method in methods if method.kind != PART.kind or method.name in selection]


PART = FewshotPart(**WORDING.content["part"])

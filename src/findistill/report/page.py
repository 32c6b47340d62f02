"""A study's report: tables, figures and one self-contained page, from its finished runs."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from findistill.core.files import write_whole
from findistill.errors import UserError
from findistill.report import budgets, glyphs, interactive, jobs, mistakes, parts, plots, style, tables
from findistill.report.bundle import bundle
from findistill.report.choice import Choice
from findistill.report.comparisons import (
    SELECTED_BY,
    Comparison,
    Families,
    best,
    compare,
    comparisons_table,
    contrasts_table,
)
from findistill.report.methods import Method, Run, gather, setting
from findistill.report.parts import BASELINE, Picture, Results, Table
from findistill.report.published import published as read_published
from findistill.report.runs import Entry
from findistill.stats.intervals import seed_means
from findistill.stats.majority import doubt_of
from findistill.stats.metrics import confusion

MANY_SEEDS = 5  # with fewer, the spread over seeds is too uncertain for a claim about methods
# The empty fields of a section on models that do not classify.
SIMPLE: dict[str, Any] = {"label_key": "", "quality": None, "cost": None, "comparisons": [], "contrasts": [], "mistakes": []}
LEADERS = 3  # panels of the confusion and calibration figures


@dataclass(frozen=True)
class Illustration:
    """A picture on the page: its data URI, and the options of its interactive version, if it has one."""

    picture: Picture
    address: str
    chart: dict[str, Any] | None


@dataclass(frozen=True)
class ReportFiles:
    """What `build_report` wrote to the study folder."""

    table_csv: Path
    table_md: Path
    comparisons_csv: Path
    html: Path
    figures: list[Path]
    best: Path | None  # the run folder of the best method's best seed; None if no method classifies


@style.styled
def build_report(
    study: str, runs: list[Run], failed: list[dict[str, Any]], out: Path, *, published: str | None = None, resamples: int = 2000,
    command: str | None = None, annotations: pd.DataFrame | None = None, left_out: Sequence[dict[str, Any]] = (),
    choice: Choice | None = None, entries: Sequence[Entry] = (),
    texts: Mapping[str, Mapping[str, str]] | None = None, families: Families | None = None,
) -> ReportFiles:  # fmt: skip
    """Write `table.csv`, `table.md`, `comparisons.csv`, `figures/` and `report.html` to `out`, each completely or not at all.

    Args:
        failed: one dict per failed job: `job` (its name), `error` (one line), `method` if known.
        left_out: done jobs that are not in the report, in the form of `failed`.
        published: a key of published.yaml; its numbers are in a separate table.
        command: the command that repeats the study.
        annotations: the annotator's votes on the training texts, for the agreement figure (columns agreement, label,
            n_samples, gold if known). Without it, the figure is drawn from a baseline whose predictions have
            `agreement` and `n_samples`.
        choice: how the settings of the study's jobs were chosen on folds.
        entries: all jobs of the study, for the table of jobs.
        families: what is tested against what; by default as in the report parts.
        texts: data set -> id -> text, of the texts that may be shown next to errors.

    No other text of the data gets into the files; rows are identified only by their ids.

    Raises:
        UserError: no finished run, or runs that do not fit together (see `methods.gather`); unknown `published`.
    """
    if not runs:
        raise UserError(f"study={study}: no finished job to report on. Run some first, then stage=report again.")
    numbers = read_published(published) if published else None
    methods = gather([run for run in runs if parts.of_kind(run.kind).classifies])
    estimates = [seed_means(one.gold, one.predicted, len(one.labels), units=one.units, resamples=resamples) for one in methods]
    table = tables.results(methods, estimates, failed)
    comparisons = compare(methods, resamples=resamples, families=families)

    sections: list[dict[str, Any]] = []
    figures: list[Path] = []
    test_sets = list(dict.fromkeys(method.test_set for method in methods))
    for test_set in test_sets:
        here = [(method, own) for method, own in zip(methods, estimates, strict=True) if method.test_set == test_set]
        one = Results(test_set, [method for method, _ in here], {method.name: own for method, own in here}, annotations)
        section = _section(one, table, comparisons, chosen=choice is not None)
        own_texts = (texts or {}).get(str(setting(one.methods[0].config, "data.name")), {})
        for each in mistakes.tables(one.methods, _leaders(one), own_texts):
            section["mistakes"].append((each, tables.formatted(each).head(mistakes.SHOWN)))
        prefix = re.sub(r"[^a-z0-9]+", "_", test_set.lower()).strip("_") + "_" if len(test_sets) > 1 else ""
        figures += _drawn(_pictures(one), out, section, prefix)
        sections.append(section)
    for part in parts.registered().values():
        for own in part.sections([run for run in runs if run.kind == part.kind], resamples):
            formatted = [(each, tables.formatted(each)) for each in own.tables]
            sections.append({**SIMPLE, **vars(own), "tables": formatted, "pictures": []})
            figures += _drawn(own.pictures, out, sections[-1])
    further = [(section["test_set"], each) for section in sections for each, _ in (*section["tables"], *section["mistakes"])]
    downloads = {"comparisons.csv": tables.csv(comparisons_table(comparisons))}
    for name in {each.name: None for _, each in further}:
        frames = [each.frame.assign(test_set=test_set) for test_set, each in further if each.name == name]
        downloads[f"{name}.csv"] = tables.csv(pd.concat(frames))
    listed = jobs.jobs_table(entries, methods)
    if len(listed):
        downloads["jobs.csv"] = tables.csv(listed)

    with_runs = [part for part in parts.registered().values() if any(run.kind == part.kind for run in runs)]
    reading = [note for part in with_runs for note in part.notes(methods)]
    reading += tables.WORDING.notes(resamples=resamples) if methods else []
    short = tables.readable(table) if methods else None
    if not methods and sections:  # the study has no other table
        table = sections[0]["tables"][0][0].frame
    page: dict[str, Any] = {"study": study, "table": short, "sections": sections, "failed": failed, "published": numbers}
    page |= {"reading": reading, "command": command, "left_out": list(left_out), "choice": choice}
    downloads["table.csv"] = tables.csv(table)
    page |= {
        "jobs": jobs.as_text(listed) if len(listed) else None,
        "job_words": jobs.WORDS,
        "mistake_words": mistakes.WORDS,
        "assets": bundle(charts=any(one.chart for section in sections for one in section["pictures"])),
    }
    page["downloads"] = {name: base64.b64encode(content.encode()).decode() for name, content in downloads.items()}
    csvs = {name: write_whole(out / name, content) for name, content in downloads.items()}
    return ReportFiles(
        csvs["table.csv"],
        write_whole(out / "table.md", _rendered("table.md.j2", page)),
        csvs["comparisons.csv"],
        write_whole(out / "report.html", _rendered("report.html.j2", page)),
        figures,
        _best_run([method for method in methods if method.test_set == test_sets[0]]) if methods else None,
    )


def _leader(methods: Sequence[Method]) -> tuple[Method, bool]:
    """The best method of a test set, of the kind that the study is about; False if it was not selected on validation rows."""
    here = parts.present(methods)
    top, fair = best(here[0].own(methods) if here else methods)
    assert top is not None
    return top, fair


def _best_run(methods: Sequence[Method]) -> Path | None:
    return max(_leader(methods)[0].runs, key=lambda run: run.metrics.get(SELECTED_BY) or 0.0).folder


def _drawn(pictures: Iterable[Picture], out: Path, section: dict[str, Any], prefix: str = "") -> list[Path]:
    """Save the pictures of a section and add them to it; return their files."""
    figures: list[Path] = []
    for picture in pictures:
        name = f"{prefix}{picture.name}"
        with style.dispensable(name):
            paths = style.save(picture.figure, out / "figures" / name, vector=True)
            figures += paths
            address = "data:image/svg+xml;base64," + base64.b64encode(paths[-1].read_bytes()).decode()
            section["pictures"].append(Illustration(replace(picture, name=name), address, interactive.chart(picture.figure)))
    return figures


def _section(one: Results, table: pd.DataFrame, comparisons: Sequence[Comparison], *, chosen: bool) -> dict[str, Any]:
    """What the page says about one test set; `pictures` are added when they are drawn."""
    tests = [test for test in comparisons if test.test_set == one.test_set]
    here = parts.present(one.methods)
    rows = tables.readable(table[table["test_set"] == one.test_set])
    return {
        "test_set": one.test_set,
        "rows": f"{len(one.methods[0].ids):,} {here[0].rows if here else 'test rows'}",
        "summary": summary(one, tests, chosen=chosen),
        "doubts": doubts(one),
        "label_key": glyphs.key(one.methods[0].labels),
        "quality": rows.drop(columns=[column for column in (*tables.COST, "Test set") if column in rows]),
        "cost": rows[[column for column in rows if column == "Method" or column in tables.COST]],
        "comparisons": tests,
        "contrasts": contrasts_table(tests),
        "tables": [(each, tables.formatted(each)) for each in _tables(one)],
        "mistakes": [],
        "pictures": [],
    }


def _tables(one: Results) -> Iterator[Table]:
    """The tables of the report parts, and the one by label."""
    for part in parts.present(one.methods):
        yield from part.tables(one)
    yield tables.by_label(one.methods)


def summary(one: Results, tests: Sequence[Comparison], *, chosen: bool = False) -> str:
    """The main result on a test set in one sentence, how the best was selected, and how far it is from the best baseline."""
    here = parts.present(one.methods)
    top, fair = _leader(one.methods)
    score = one.estimates[top.name]
    if main := next((test for test in tests if test.main), None):
        seeds = min(main.n_seeds_a, main.n_seeds_b)
        about = f", over {main.accuracy.over}"
        if main.accuracy.over == "rows":
            about += ": a result about these two models, not about the methods"
        elif seeds < MANY_SEEDS:
            about += f": {seeds} seed{'s' * (seeds > 1)} per method, too few for a claim, which needs {MANY_SEEDS}"
        verdict = "different" if main.p_holm < 0.05 else "not distinguishable"
        text = (
            f"{main.a} against {main.b}, {main.family}: {tables.difference(main.accuracy)} points of accuracy, {verdict} "
            f"(p {tables.p_value(main.p_holm)}; {main.n_rows:,} rows{about})."
        )
    else:
        noun = here[0].noun if here and here[0].noun else "method"
        accuracy, macro_f1 = (tables.estimate(score[name]) for name in ("accuracy", "macro_f1"))
        text = f"Best {noun}: {top.name}, accuracy {accuracy}, macro F1 {macro_f1}."
    if chosen:
        text += " Its settings were chosen on folds of the labelled rows."
    else:
        text += " Selected on the validation split." if fair else " Selected on the rows that it is scored on, which favours it."
    baselines = [method for method in one.methods if method.kind == BASELINE and method is not top]
    means = {method.name: one.estimates[method.name]["accuracy"].mean for method in (top, *baselines)}
    rival = max(baselines, key=lambda method: means[method.name], default=None)
    if rival and means[rival.name] >= means[top.name]:
        return f"{top.name} is not above the baseline {rival.name} ({means[top.name]:.3f}, {means[rival.name]:.3f}). {text}"
    if rival and (gap := next((test for test in tests if (test.a, test.b) == (top.name, rival.name)), None)):
        text += (
            f" Its difference to the best baseline, {rival.name}: {tables.difference(gap.accuracy)} points of accuracy"
            f" (p {tables.p_value(gap.p_holm)}, over {gap.accuracy.over})."
        )
    return text


def doubts(one: Results) -> list[str]:
    """The methods, except baselines, that are not above the majority class of the test rows or predict only one label."""
    reasons = {
        method.name: doubt_of(
            one.estimates[method.name], method.gold, method.predicted,
            {name: method.mean_metric(f"test/{name}") for name in ("learnt_from", "unseen_accuracy")},
        )
        for method in one.methods if method.kind != BASELINE
    }  # fmt: skip
    return [f"{name}: {reason}." for name, reason in reasons.items() if reason]


def _pictures(one: Results) -> Iterator[Picture]:
    """The figures that every study has, and those of the report parts; one that cannot be drawn is left out."""
    for draw in (_of_all_methods, *(part.pictures for part in parts.present(one.methods)), _of_leaders):
        with style.dispensable(f"of {one.test_set}"):
            yield from draw(one)


def _of_all_methods(one: Results) -> Iterator[Picture]:
    here = parts.present(one.methods)
    groups = {method.name: parts.of_kind(method.kind).group(method) for method in one.methods}
    runs = here[0].runs.lower() if here else "seeds"
    if curves := budgets.series(one.methods):
        yield tables.WORDING.picture("labels", budgets.by_labels(curves, one.estimates))
    yield tables.WORDING.picture("comparison", plots.comparison(one.methods, one.estimates, groups), runs=runs)


def _leaders(one: Results) -> list[Method]:
    """The methods whose errors are shown: those that the report parts name, else the best."""
    here = parts.present(one.methods)
    candidates: list[Method | None] = []
    for part in here:
        candidates += part.leaders(one.methods) or [best(part.own(one.methods))[0]]
    return [method for method in candidates or [best(one.methods)[0]] if method][:LEADERS]


def _of_leaders(one: Results) -> Iterator[Picture]:
    leaders = _leaders(one)
    every = [[confusion(leader.gold, one, len(leader.labels)) for one in leader.predicted] for leader in leaders]
    matrices = [(leader.name, np.mean(of_seeds, axis=0)) for leader, of_seeds in zip(leaders, every, strict=True)]
    yield tables.WORDING.picture("confusion_matrix", plots.confusion_matrices(matrices, leaders[0].labels))
    if scored := [leader for leader in leaders if np.isfinite(leader.probabilities).any()]:
        yield tables.WORDING.picture("calibration", plots.calibration(scored))


def _rendered(template: str, page: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("findistill.report"), autoescape=jinja2.select_autoescape(["html.j2"]), trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    names = ("difference", "p_value", "job_name", "markdown", "markdown_cell", "order")
    environment.filters |= {name: getattr(tables, name) for name in names}
    return environment.get_template(template).render(**page, words=tables.WORDS)

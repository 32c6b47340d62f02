"""A study's report: tables, figures and one self-contained page, from its finished runs."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from findistill.analysis import annotator_study, distilled_study, plots, shots_study
from findistill.analysis.comparisons import AGAINST_TUNED, Comparison, best, compare
from findistill.analysis.intervals import Estimate, seed_means
from findistill.analysis.methods import REPEATS, Method, Run, gather
from findistill.analysis.metrics import confusion
from findistill.analysis.published import Published
from findistill.analysis.published import published as read_published
from findistill.analysis.tables import COST, WORDS, job_name, markdown, readable, results
from findistill.analysis.words import against, chosen, difference, p_is, p_value, points, value
from findistill.errors import UserError
from findistill.runs.files import write_whole

__all__ = ["ReportFiles", "Run", "build_report"]


@dataclass(frozen=True)
class ReportFiles:
    """What `build_report` left in the study folder."""

    table_csv: Path
    table_md: Path
    html: Path
    figures: list[Path]


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    caption: str
    source: str  # data URI


@dataclass
class Section:
    """What the page says about one test set."""

    test_set: str
    rows: str
    findings: list[str]
    quality: pd.DataFrame
    cost: pd.DataFrame
    comparisons: list[Comparison]
    pictures: list[Picture] = field(default_factory=list)
    stopping: pd.DataFrame = field(default_factory=pd.DataFrame)  # annotators: `annotator_study.stopping_table`


def build_report(
    study: str,
    runs: list[Run],
    failed: list[dict[str, Any]],
    out: Path,
    *,
    published: str | None = None,
    resamples: int = 2000,
    command: str | None = None,
    annotations: pd.DataFrame | None = None,
) -> ReportFiles:
    """Write `table.csv`, `table.md`, `figures/` and `report.html` into `out`, each whole or not at all.

    Args:
        failed: one dict a failed job: `job` (its name), `error` (one line), `method` where known.
        published: a key of published.yaml; its numbers stand in a table of their own.
        command: what to type to make the study again.
        annotations: the annotator's answers on the training texts, for the agreement figure (columns agreement, label,
            n_samples, gold where known). Without it the figure is drawn from a baseline whose predictions have
            `agreement` and `n_samples`.

    No text of the data gets into the files; rows are known by their ids alone.

    Raises:
        UserError: no finished run, or runs that do not fit together (see `methods.gather`); unknown `published`.
    """
    if not runs:
        raise UserError(f"study={study}: no finished job to report on. Run some first, then stage=report again.")
    numbers = read_published(published) if published else None
    methods = gather(runs)
    estimates = [seed_means(method.gold, method.predicted, len(method.labels), resamples=resamples) for method in methods]
    table = results(methods, estimates, failed)
    comparisons = compare(methods, resamples=resamples)

    sections, figures = [], []
    test_sets = list(dict.fromkeys(method.test_set for method in methods))
    for test_set in test_sets:
        here = [method for method in methods if method.test_set == test_set]
        known = {m.name: one for m, one in zip(methods, estimates, strict=True) if m.test_set == test_set}
        tests = [one for one in comparisons if one.test_set == test_set]
        rows = readable(table[table["test_set"] == test_set])
        cost = rows[[column for column in rows if column == "Method" or column in COST]]
        quality = rows.drop(columns=[column for column in (*COST, "Test set") if column in rows])
        annotators = annotator_study.of(here)
        study_of = next((kind for kind in (annotator_study, shots_study, distilled_study) if kind.of(here)), None)
        said = study_of.findings(here, known, tests) if study_of else _findings(here, known, tests)
        what = f"{len(here[0].ids):,} {'annotated texts with gold labels' if annotators else 'test rows'}"
        section = Section(test_set, what, said, quality, cost, tests)
        section.stopping = annotator_study.stopping_table(annotator_study.early_stopping(annotators))
        prefix = f"{_slug(test_set)}_" if len(test_sets) > 1 else ""
        for name, title, caption, figure in _figures(here, known, annotations):
            paths = plots.save(figure, out / "figures" / f"{prefix}{name}")
            figures += paths
            section.pictures.append(Picture(f"{prefix}{name}", title, caption, _data_uri(paths[-1])))
        sections.append(section)

    shown = readable(table)
    heading = f"# Study {study}\n\n"
    legend = "\n" + "\n".join(f"- {line}" for line in _reading(methods, resamples)) + "\n"
    missing = "".join(f"\n- failed: {job_name(job)}: {job.get('error', '')}" for job in failed)
    reproduce = "".join(f"\n    {line}" for line in command.splitlines()) + "\n" if command else ""
    page = _page(study, sections, failed, numbers, _reading(methods, resamples), command)
    stopping = "".join(
        f"\nEarly stopping (`annotate.stop_at`), {section.test_set}:\n\n{markdown(section.stopping)}"
        for section in sections
        if len(section.stopping)
    )
    return ReportFiles(
        write_whole(out / "table.csv", table.to_csv(index=False)),
        write_whole(
            out / "table.md", heading + markdown(shown) + stopping + legend + (missing + "\n" if missing else "") + reproduce
        ),
        write_whole(out / "report.html", page),
        figures,
    )


def _findings(methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]], tests: list[Comparison]) -> list[str]:
    """The main results as sentences, worked out from the numbers."""
    students = [method for method in methods if method.kind == "student"]
    said = []
    fair = True
    for objective, meaning in (("CLS", "cross-entropy on the hard label"), ("REG", "mean squared error on the votes")):
        winner, by_validation = best([student for student in students if student.objective == objective])
        if winner:
            fair &= by_validation
            one = estimates[winner.name]
            share = winner.mean_metric("data/kept_share")
            used = f", trained on {share:.0%} of the annotated texts" if share is not None else ""
            said.append(
                f"Best {objective} ({meaning}): {winner.name}, accuracy {value(one['accuracy'])}, "
                f"macro F1 {value(one['macro_f1'])}{used}."
            )
    main = next((one for one in tests if one.main), None)
    if main:
        said.insert(0, _verdict(main))
    said += _threshold_effect(students, estimates)
    said += [against(one) for one in tests if not one.family.startswith("CLS")]
    if not students:
        top, fair = best(list(methods))
        assert top is not None
        one = estimates[top.name]
        said.append(f"Best: {top.name}, accuracy {value(one['accuracy'])}, macro F1 {value(one['macro_f1'])}.")
    return [*said, chosen(fair)]


def _verdict(main: Comparison) -> str:
    gap = main.accuracy
    if gap.difference == 0:
        return f"{main.a} and {main.b}, the best of each objective, are equally accurate on {main.rows:,} test rows."
    ahead, behind, low, high = (main.a, main.b, gap.low, gap.high)
    if gap.difference < 0:
        ahead, behind, low, high = (main.b, main.a, -gap.high, -gap.low)
    by = (
        f"{points(abs(gap.difference), sign=False)} of accuracy (95% interval {points(low, sign=False, unit='')} to "
        f"{points(high, sign=False)}; {p_is(main.p_holm)}; {main.rows:,} test rows)"
    )
    if main.p_holm < 0.05:
        return f"{ahead} beats {behind}, the best of the other objective, by {by}."
    return f"The best CLS and the best REG cannot be told apart on this data: {ahead} is ahead of {behind} by {by}."


def _threshold_effect(students: Sequence[Method], estimates: dict[str, dict[str, Estimate]]) -> list[str]:
    said = []
    rows = [student for student in students if student.objective and student.threshold is not None]
    for name in dict.fromkeys(plots.series_name(student, rows) for student in rows):
        members = sorted((s for s in rows if plots.series_name(s, rows) == name), key=lambda s: s.threshold or 0)
        if len(members) > 1:
            first, last = members[0], members[-1]
            change = estimates[last.name]["macro_f1"].mean - estimates[first.name]["macro_f1"].mean
            said.append(
                f"{name} from agreement ≥{first.threshold} to ≥{last.threshold}: macro F1 changes by "
                f"{points(change)} ({estimates[first.name]['macro_f1'].mean:.3f} to "
                f"{estimates[last.name]['macro_f1'].mean:.3f})."
            )
    return said


def _figures(
    methods: Sequence[Method], estimates: dict[str, dict[str, Estimate]], annotations: pd.DataFrame | None
) -> list[tuple[str, str, str, Figure]]:
    """(file name, title, caption, figure) of every figure that the runs give grounds for."""
    made = []
    annotators = annotator_study.of(methods)
    students = [method for method in methods if method.kind == "student"]
    distilled = [student for student in students if student.objective and student.threshold is not None]
    scored = [student for student in distilled if np.isfinite(student.probabilities).any()]
    if len({student.threshold for student in distilled}) > 1:
        made.append((
            "thresholds", "Agreement threshold",
            "Students by the agreement that a text needs to be trained on. Marks: mean over seeds; dots: single seeds; "
            "bars: 95% bootstrap interval of that mean over the test rows. Horizontal lines: teachers and baselines, "
            "with accuracy / macro F1; those far from the students are off the scale.",
            plots.thresholds(methods, estimates),
        ))  # fmt: skip
    one, several = ("run", "repeats") if annotators else ("seed", "seeds")
    made.append((
        "comparison", "All methods",
        f"Sorted by accuracy. Bars: 95% bootstrap interval of the mean over {several}; dots: single {one}s. Bars that "
        "overlap do not mean that methods are equal: the paired tests compare them on the same rows.",
        plots.comparison(methods, estimates),
    ))  # fmt: skip
    made += annotator_study.figures(methods, estimates) if annotators else shots_study.figures(methods, estimates)
    if distilled_study.of(methods):
        made += distilled_study.figures(methods, estimates)
    if {student.objective for student in scored} >= {"CLS", "REG"}:
        made.append((
            "precision_recall", "Precision and recall, CLS against REG",
            "Each label against the rest by the predicted probability, mean over seeds at equal recall. Darker: "
            "stricter threshold. Solid: CLS; broken: REG. A smooth, falling curve makes it easy to pick a cut-off for "
            "a wanted precision.",
            plots.objective_curves(scored),
        ))  # fmt: skip
    chosen = [best([s for s in students if s.objective == objective])[0] for objective in ("CLS", "REG")]
    leaders = [one for one in chosen if one] or [one for one in [best(students or annotators or list(methods))[0]] if one]
    made.append((
        "confusion_matrix", "Confusion",
        "Test rows by gold and predicted label, mean over seeds; shade and percentage: share of the gold label's rows.",
        plots.confusion_matrices([(one.name, _mean_confusion(one)) for one in leaders], leaders[0].labels),
    ))  # fmt: skip
    if all(np.isfinite(one.probabilities).any() for one in leaders):
        made.append((
            "calibration", "Calibration",
            "Accuracy by confidence in 15 bins, all seeds pooled. On the dotted line a model is right as often as it "
            "is confident; ECE in the table is the mean distance from it, weighted by the number of texts.",
            plots.calibration(leaders),
        ))  # fmt: skip
    voted, whose = (None, "") if annotators else _voted(methods, annotations)
    if voted is not None:
        made.append((
            "agreement", "The annotator's agreement",
            f"The annotator's repeated answers on {whose}: how often they agree, and how right the most frequent is.",
            plots.agreement(voted),
        ))  # fmt: skip
    return made


def _voted(methods: Sequence[Method], annotations: pd.DataFrame | None) -> tuple[pd.DataFrame | None, str]:
    if annotations is not None:
        return annotations, "the texts to be distilled"
    for method in methods:
        frame = method.runs[0].predictions
        if {"agreement", "n_samples"} <= set(frame.columns):
            answers = frame[["agreement", "n_samples", "predicted"]].rename(columns={"predicted": "label"})
            return answers.assign(gold=frame["label"]), "the test rows"
    return None, ""


def _mean_confusion(method: Method) -> np.ndarray:
    tables = [confusion(method.gold, one, len(method.labels)) for one in method.predicted]
    return np.mean(tables, axis=0)


def _reading(methods: Sequence[Method], resamples: int) -> list[str]:
    """How each number is made, in the words that the table and the page share."""
    annotators = [
        "Annotators stand on the texts they labelled, against the labels that the source has for them. Jobs that differ in "
        f"{', '.join(REPEATS)} alone are repeats of one method, and count as its seeds; they are named by these three values.",
        "Samples, tokens (read and written) and seconds (of the model or the server, summed over calls) are what the "
        "annotations took when they were made. Valid answers: share of the samples that name a label.",
    ] if annotator_study.of(methods) else []  # fmt: skip
    shots = [
        "Few-shot methods: k counts all demonstrations of a prompt. Seeds draw other ones; with the nearest or with none "
        "nothing is drawn, and equal jobs count as one run. Where fewshot.limit had them asked on a sample of the test rows, "
        "all methods stand on that sample here; columns of further test sets are each job's own rows.",
    ] if shots_study.of(methods) else []  # fmt: skip
    return [
        *annotators,
        *shots,
        "0.712 ± 0.004 [0.70, 0.73]: mean over seeds, standard deviation over seeds, 95% interval of the mean.",
        f"Intervals: percentile bootstrap, {resamples:,} resamples of the test rows, the same rows for all seeds. They "
        "say what another test set of this size might show; the ± says what another seed might.",
        "Macro F1 weighs labels equally, weighted F1 by their rows. Micro AP: average precision over all (row, label) "
        "pairs. ECE: expected calibration error over 15 bins of equal width, of the predicted label's probability.",
        "A row without a readable answer counts as wrong; coverage is the share of rows with one.",
        "Paired tests: both methods on the same rows, mean over seeds per row, exact sign-flip permutation test, "
        "two-sided (McNemar's exact test when each has one seed); p adjusted by Holm within a family of tests.",
        "Labels used: texts that passed the agreement threshold, and their share of the annotated ones. "
        "Train s: wall clock; CPU s: processor time of the process; latency: median of one text at a time.",
    ]


def _page(
    study: str,
    sections: list[Section],
    failed: list[dict[str, Any]],
    numbers: Published | None,
    reading: list[str],
    command: str | None,
) -> str:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"difference": difference, "p_value": p_value, "job_name": job_name}
    template = environment.from_string(files("findistill.analysis").joinpath("report.html.j2").read_text("utf-8"))
    both = any(one.main for section in sections for one in section.comparisons)
    question = (
        "When a small model learns from repeated votes on each text, should it learn the majority label (CLS, "
        "cross-entropy) or the shares of the votes (REG, mean squared error), and how strictly should texts be "
        "filtered by agreement?"
        if both
        else "Which model, prompt and demonstrations label texts best and at what cost, what do more samples and stricter "
        "agreement buy, and what does stopping early save?"
        if sections and all(len(section.stopping) for section in sections)
        else "How does an LLM with k demonstrations in its prompt compare with fine-tuned models on the same rows, which "
        "demonstrations help, and what do 1,000 predictions cost?"
        if any(one.family == AGAINST_TUNED for section in sections for one in section.comparisons)
        else "Which of these methods is the best, and how sure can one be?"
    )
    return template.render(
        study=study,
        question=question,
        sections=sections,
        failed=failed,
        published=numbers,
        reading=reading,
        command=command,
        words=WORDS,
    )


def _data_uri(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")

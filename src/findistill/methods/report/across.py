"""`report.compare=[a,b]`: one report over the jobs of several studies, each pair of methods tested, p adjusted over all pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

from findistill.core import run_folder
from findistill.core.study import existing
from findistill.errors import UserError
from findistill.report.comparisons import best
from findistill.report.methods import Method, Run
from findistill.report.parts import Family
from findistill.report.runs import Jobs, collect

STUDY = "study"  # key in the status of a run: the study that it belongs to


def folders_of(runs_dir: Path, study: str, compared: Sequence[str]) -> list[Path]:
    """The folders of the studies that a report covers.

    Raises:
        UserError: a study does not exist, only one is compared, or the report would overwrite that of a study with its own jobs.
    """
    folders = [existing(runs_dir, name) for name in dict.fromkeys(compared) or [study]]
    if compared and len(folders) < 2:
        raise UserError(f"report.compare=[{folders[0].name}]: name two or more studies, report.compare=[{folders[0].name},OTHER]")
    if compared and any(run_folder.jobs(runs_dir / study)):
        raise UserError(
            f"study={study} has its own jobs and report, which report.compare would overwrite.\n"
            f"Name the comparison: study={'_and_'.join(folder.name for folder in folders)}"
        )
    return folders


def collect_all(folders: Sequence[Path]) -> Jobs:
    """The jobs of all studies; with several, the status of each run names its study."""
    if len(folders) == 1:
        return collect(folders[0])
    every = [collect(folder) for folder in folders]
    runs = [
        replace(run, status={**run.status, STUDY: folder.name})
        for folder, jobs in zip(folders, every, strict=True)
        for run in jobs.runs
    ]
    failed, left_out = (
        [{**job, "job": f"{folder.name}/{job['job']}"} for folder, listed in zip(folders, lists, strict=True) for job in listed]
        for lists in ([jobs.failed for jobs in every], [jobs.left_out for jobs in every])
    )
    return Jobs(runs, failed, left_out, [entry for jobs in every for entry in jobs.entries])


def named_by_study(runs: Sequence[Run]) -> list[Run]:
    """Runs with their study in the method's name; baselines, which belong to none, are unchanged."""
    return [replace(run, method=f"{run.method} [{run.status[STUDY]}]") if STUDY in run.status else run for run in runs]


def study_of(method: Method) -> str | None:
    name = method.runs[0].status.get(STUDY)
    return str(name) if name else None


def families(methods: Sequence[Method]) -> Iterator[Family]:
    """One family of tests on a test set: for any two studies, their best methods first, then every pair across them.

    `methods` are all of one test set. Methods of the same study are compared in that study's own report.
    """
    by_study: dict[str, list[Method]] = {}
    for method in methods:
        if study := study_of(method):
            by_study.setdefault(study, []).append(method)
    pairs: dict[tuple[str, str], tuple[Method, Method]] = {}
    for first, second in combinations(by_study.values(), 2):
        leaders = best(first)[0], best(second)[0]
        for a, b in [leaders, *product(first, second)]:
            assert a and b
            pairs.setdefault((a.name, b.name), (a, b))
    if pairs:
        yield Family(" against ".join(by_study), list(pairs.values()), main=True)


def check_common_rows(methods: Sequence[Method]) -> None:
    """Raise UserError if no two studies share test rows."""
    shared: dict[str, set[str]] = {}
    for method in methods:
        if study := study_of(method):
            shared.setdefault(method.test_set, set()).add(study)
    if shared and not any(len(studies) > 1 for studies in shared.values()):
        tested = {study: method for method in methods if (study := study_of(method))}
        own = "; ".join(f"{study}: {len(method.ids):,} rows of {method.test_set}" for study, method in tested.items())
        raise UserError(
            f"report.compare=[{','.join(tested)}]: the studies have different test rows ({own}), so they cannot be compared.\n"
            "Score them on the same rows: same data, data.test and data.seed."
        )

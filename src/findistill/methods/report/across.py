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

STUDY = "study"  # in the status of a run: the study that it is of


def folders_of(runs_dir: Path, study: str, compared: Sequence[str]) -> list[Path]:
    """The folders of the studies that a report is about.

    Raises:
        UserError: one does not exist, it is the only one, or the report would overwrite that of a study with jobs of its own.
    """
    folders = [existing(runs_dir, name) for name in dict.fromkeys(compared) or [study]]
    if compared and len(folders) < 2:
        raise UserError(f"report.compare=[{folders[0].name}]: name two studies or more, report.compare=[{folders[0].name},OTHER]")
    if compared and any(run_folder.jobs(runs_dir / study)):
        raise UserError(
            f"study={study}: has jobs and a report of its own, which report.compare would overwrite.\n"
            f"Give the comparison a name: study={'_and_'.join(folder.name for folder in folders)}"
        )
    return folders


def collect_all(folders: Sequence[Path]) -> Jobs:
    """The jobs of all studies; of several, each run knows its study."""
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
    """Runs whose methods are told apart by their study; baselines, which are of none, as they are."""
    return [replace(run, method=f"{run.method} [{run.status[STUDY]}]") if STUDY in run.status else run for run in runs]


def study_of(method: Method) -> str | None:
    name = method.runs[0].status.get(STUDY)
    return str(name) if name else None


def families(methods: Sequence[Method]) -> Iterator[Family]:
    """One family of tests on a test set: the best methods of two studies first, then every pair of methods of two studies.

    `methods` are all of one test set. Those of a single study are compared in that study's own report.
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
    """Raises UserError if no test rows are shared by methods of two studies."""
    shared: dict[str, set[str]] = {}
    for method in methods:
        if study := study_of(method):
            shared.setdefault(method.test_set, set()).add(study)
    if shared and not any(len(studies) > 1 for studies in shared.values()):
        tested = {study: method for method in methods if (study := study_of(method))}
        own = "; ".join(f"{study}: {len(method.ids):,} rows of {method.test_set}" for study, method in tested.items())
        raise UserError(
            f"report.compare=[{','.join(tested)}]: the studies were tested on other rows ({own}), so nothing can be compared.\n"
            "Score both on the same rows: the same data, data.test and data.seed."
        )

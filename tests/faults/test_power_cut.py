"""What a power cut leaves of a file: nothing, half of it, or zeros in its second half. The same command makes the same table."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.faults.conftest import CSV, OWN, ROWS, SMALL, Application

CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: content[: len(content) // 2].ljust(len(content), b"\0"),
}


@pytest.fixture
def sweep(application: Application, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A command that annotates, trains a teacher and two students and makes a report; it has been run."""
    monkeypatch.setenv("FINDISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "mine.csv").write_text(CSV)
    (tmp_path / "answers.csv").write_text("text,answer\n" + "".join(f"{text},Sentiment: {label}\n" for text, label in ROWS * 8))
    command = (
        "-m", "stage=student", "distill=cls,logit", f"student={tiny}", f"teacher={tiny}", *OWN, *SMALL, "study=moon",
        "sweep.report=true", "llm=recorded", "llm.path=answers.csv", "report.resamples=10", "report.baselines=[majority]",
    )  # fmt: skip
    ended = application(*command)
    assert ended.code == 0, ended.errors
    return command


def every(root: Path) -> list[Path]:
    """All files of the study, its store and the user's cache."""
    files = (path for top in ("runs", "cache") if (root / top).exists() for path in sorted((root / top).rglob("*")))
    return [path for path in files if path.is_file() and path.suffix != ".lock"]


def kinds(root: Path) -> dict[str, Path]:
    """A file of each kind, by its path without keys."""
    names = ((re.sub(r"[0-9a-f]{8,}", "KEY", path.relative_to(root).as_posix()), path) for path in every(root))
    names = ((re.sub(r"student-.*?-KEY/", "student-KEY/", name), path) for name, path in names)
    return {re.sub(r"figures/.*\.", "figures/one.", name): path for name, path in names}


def table(root: Path) -> pd.DataFrame:
    frame = pd.read_csv(root / "runs/moon/table.csv")
    return frame[[name for name in frame if not re.search(r"_s$|_ms$|_mb$", name)]]


def test_all_files_at_once(application: Application, sweep: tuple[str, ...], tmp_path: Path) -> None:
    before = table(tmp_path)
    for path in every(tmp_path):
        if path.suffix != ".jsonl":  # a journal that cannot be read is not made anew without a word: it may have cost money
            path.write_bytes(CUTS["zeros"](path.read_bytes()))
    ended = application(*sweep)
    assert ended.code == 0 and "Traceback" not in ended.errors, ended.errors
    assert "damaged-1 and made again" in ended.errors and "tokenised again" in ended.errors
    pd.testing.assert_frame_equal(table(tmp_path), before, check_exact=True)
    assert "nothing to do: every job is done" in application(*sweep).errors


@pytest.mark.slow
def test_a_file_of_each_kind(application: Application, sweep: tuple[str, ...], tmp_path: Path) -> None:
    """One at a time, cut in one of the three ways, which take turns."""
    before = table(tmp_path)
    for top in ("runs", "cache"):
        shutil.copytree(tmp_path / top, tmp_path / "whole" / top, symlinks=True)
    for number, (kind, path) in enumerate(kinds(tmp_path).items()):
        name = list(CUTS)[number % len(CUTS)]
        path.write_bytes(CUTS[name](path.read_bytes()))
        ended = application(*sweep)
        assert "Traceback" not in ended.errors and ended.code in (0, 2), (kind, name, ended.errors)
        if ended.code == 2:
            ended.is_mistake(path.name)
        else:
            pd.testing.assert_frame_equal(table(tmp_path), before, check_exact=True, obj=f"{kind}, {name}")
        for top in ("runs", "cache"):
            shutil.rmtree(tmp_path / top)
            shutil.copytree(tmp_path / "whole" / top, tmp_path / top, symlinks=True)

"""After a power cut a file is empty, truncated, or zeros in its second half. The same command creates the same table."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from findistill.llm.cache import ResponseCache
from findistill.training.classifier import EncoderClassifier
from tests.faults.conftest import CSV, OWN, SMALL, Application, Outcome, assert_same, results
from tests.llm.servers import KEY, LoopbackServer, seeded

CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: content[: len(content) // 2].ljust(len(content), b"\0"),
}
PLACES = ("runs", "cache")  # a study with its store, and the user's cache


@dataclass(frozen=True)
class Sweep:
    """A command that annotates, trains a teacher and two students, and writes a report; `runs_dir` is `runs`."""

    application: Application
    command: tuple[str, ...]
    folder: Path

    def run(self) -> Outcome:
        return self.application(*self.command)

    def results(self) -> Any:
        return results(self.folder / "runs/moon")

    def every(self) -> list[Path]:
        """All files in `PLACES`."""
        files = (path for place in PLACES for path in sorted((self.folder / place).rglob("*")))
        return [path for path in files if path.is_file() and path.suffix != ".lock" and "latest-" not in str(path)]

    def kinds(self) -> dict[str, Path]:
        """One file of each kind: its path without keys -> its path."""
        names = ((re.sub(r"[0-9a-f]{8,}", "KEY", path.relative_to(self.folder).as_posix()), path) for path in self.every())
        names = ((re.sub(r"student-.*?-KEY/", "student-KEY/", name), path) for name, path in names)
        return {re.sub(r"figures/.*\.", "figures/one.", name): path for name, path in names}

    def keep(self) -> None:
        """Back up all files."""
        shutil.rmtree(self.folder / "kept", ignore_errors=True)
        for place in PLACES:
            shutil.copytree(self.folder / place, self.folder / "kept" / place, symlinks=True)

    def restore(self) -> None:
        for place in PLACES:
            shutil.rmtree(self.folder / place)
            shutil.copytree(self.folder / "kept" / place, self.folder / place, symlinks=True)


@pytest.fixture
def sweep(application: Application, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    for name, value in {"FINDISTILL_CACHE": str(tmp_path / "cache"), "TEST_KEY": KEY, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for place in PLACES:
        (tmp_path / place).mkdir()
    server = LoopbackServer(seeded)
    (tmp_path / "mine.csv").write_text(CSV)
    command = (
        "-m", "stage=student", "distill=cls,logit", f"student={tiny}", f"teacher={tiny}", *OWN, *SMALL, "study=moon",
        "sweep.report=true", "report.resamples=10", "report.baselines=[majority]", "llm=endpoint", "llm.model=m",
        f"llm.base_url={server.url}", "llm.api_key_env=TEST_KEY", "shots.k=0",
        "trainer.batch_size=2", "trainer.checkpoint_every=5", "trainer.max_epochs=2",
    )  # fmt: skip
    yield Sweep(application, command, tmp_path)
    server.stop()


def interrupted(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, after: int) -> None:
    """Run the sweep and interrupt it, as Ctrl-C would, after `after` calls of a method of `owner`."""
    original, calls = getattr(owner, method), iter(range(after))

    def interrupting(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupting)
        assert sweep.run().code == 130


def survives(sweep: Sweep, paths: list[Path], way: str, expected: Any) -> int:
    """Damage files and rerun the command, following its advice, until the results match; returns how many remedies it took."""
    for path in paths:
        path.write_bytes(CUTS[way](path.read_bytes()))
    remedies = 0
    while (outcome := sweep.run()).code == 2:
        culprit = next(path for path in paths if path.exists() and path.name in outcome.errors)
        outcome.is_mistake(culprit.name, "Remove")
        culprit.unlink()
        remedies += 1
    assert outcome.code == 0 and "Traceback" not in outcome.errors, outcome.errors
    assert_same(sweep.results(), expected)
    return remedies


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way == "zeros" else pytest.mark.thorough) for way in CUTS]
)
def test_all_files_at_once(sweep: Sweep, way: str) -> None:
    sweep = replace(sweep, command=(*sweep.command, "trainer.batch_size=32", "trainer.max_epochs=1"))  # for speed
    assert sweep.run().code == 0
    before = sweep.results()
    for path in sweep.every():
        if path.suffix != ".jsonl":  # a damaged journal is not silently created anew: it may have cost money
            path.write_bytes(CUTS[way](path.read_bytes()))
    outcome = sweep.run()
    assert outcome.code == 0 and "Traceback" not in outcome.errors, outcome.errors
    assert "damaged-1 and creating it again" in outcome.errors and "tokenised again" in outcome.errors
    assert_same(sweep.results(), before)
    assert "nothing to do: every job is done" in sweep.run().errors


# The number of calls before the interrupt: the first student takes 16 steps, the teacher after it 44.
STATES: dict[str, tuple[type, str, int] | None] = {
    "done": None,
    "annotating": (ResponseCache, "append", 5),
    "training the teacher": (EncoderClassifier, "training_step", 46),
    "training a student": (EncoderClassifier, "training_step", 14),
}


QUICKER = {"done": "half", "annotating": "zeros", "training the teacher": "empty"}  # the ones that CI has time for


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("state", "way", "at_once"), [
    *(pytest.param(state, way, 1, marks=pytest.mark.thorough) for state in STATES for way in CUTS),
    *(pytest.param(state, way, 4, marks=pytest.mark.slow) for state, way in QUICKER.items()),
])  # fmt: skip
def test_a_file_of_each_kind(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, state: str, way: str, at_once: int) -> None:
    """One or a few files at a time, in a completed or an interrupted study."""
    assert sweep.run().code == 0
    expected, before = sweep.results(), set(sweep.kinds())
    if interrupt := STATES[state]:
        for place in PLACES:
            shutil.rmtree(sweep.folder / place)
            (sweep.folder / place).mkdir()
        interrupted(sweep, monkeypatch, *interrupt)
    sweep.keep()
    journals = {".jsonl"} if state == "annotating" else set()  # a completed study does not read them
    kinds = {kind: path for kind, path in sweep.kinds().items() if not interrupt or kind not in before or path.suffix in journals}
    assert kinds
    remedies = {}
    names = list(kinds)
    for cut in (names[at : at + at_once] for at in range(0, len(names), at_once)):
        try:
            remedies[" ".join(cut)] = survives(sweep, [kinds[kind] for kind in cut], way, expected)
        except AssertionError as error:
            raise AssertionError(f"{cut}, {way}: {error}") from error
        sweep.restore()
    print(state, way, json.dumps(remedies, indent=1))

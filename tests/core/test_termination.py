"""SIGTERM is never lost, neither in a destructor, where Python drops what a handler raises, nor to another handler."""

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from findistill import cli
from findistill.core import termination
from findistill.core.files import write_json
from findistill.core.hashing import seal
from findistill.hydra_ext import errors
from findistill.hydra_ext.errors import exit_with
from findistill.report import runs, style
from findistill.training.loop import Session
from findistill.training.measured import MeasuredModule
from findistill.training.trainer import fit


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    monkeypatch.setattr(termination, "AGAIN_S", 0.1)
    monkeypatch.setattr(termination, "CLEANUP_S", 1e9)  # the process must not be ended
    monkeypatch.setattr(termination, "_said", False)
    monkeypatch.setattr(termination, "_requested", False)
    monkeypatch.setattr(termination, "_acknowledged", False)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest's time limit uses it
    termination.install()
    yield
    termination.acknowledge()
    for number, handler in before.items():
        signal.signal(number, handler)


class Thing:
    pass


def cut_short() -> None:
    """Mimics OmegaConf when interrupted inside one of its context managers."""
    try:
        raise KeyboardInterrupt
    finally:
        raise AttributeError("no attribute _invalidate_flags_cache")


@pytest.mark.parametrize("reads", ["read_run", "settings_of"])
def test_an_interrupt_that_a_library_made_another_error_of_is_no_fault_of_a_job_or_figure(
    reads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a report without the job would pass for a report of all jobs."""
    (tmp_path / "job").mkdir()
    write_json(tmp_path / "job" / "status.json", {"state": "done"})
    calls = iter([cut_short])  # only the first read is interrupted
    monkeypatch.setattr(runs, reads, lambda *_: next(calls, dict)())
    with pytest.raises(KeyboardInterrupt):
        runs.collect(tmp_path)
    with pytest.raises(KeyboardInterrupt), style.dispensable("curves"):
        cut_short()


def test_nothing_is_sealed_after_an_interrupt_that_was_dropped(installed: None, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("half of it")
    assert seal(tmp_path, ["table.csv"])
    with suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
    with pytest.raises(KeyboardInterrupt):
        seal(tmp_path, ["table.csv"])


@pytest.mark.parametrize("place", ["weak reference", "destructor", "open"])
def test_it_arrives_wherever_the_process_is(installed: None, place: str, capfd: pytest.CaptureFixture[str]) -> None:
    def callback(_: object = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        if place == "weak reference":
            thing = Thing()
            weakref.finalize(thing, lambda: None)
            reference = weakref.ref(thing, callback)
            del thing
            assert reference() is None  # the interrupt was raised in the callback, and dropped
        elif place == "destructor":
            kind = type("Kind", (), {"__del__": callback})
            kind()
        else:
            callback()
        for _ in range(200):
            time.sleep(0.01)
    assert termination.requested() and capfd.readouterr().err == ""


def test_it_arrives_though_handlers_are_put_back(installed: None) -> None:
    """Lightning restores them at the end of a fit."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    for number, handler in before.items():
        signal.signal(number, handler)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(1)


def test_an_error_that_a_library_makes_of_it_is_no_error(installed: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        try:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
            except BaseException as error:
                raise ValueError("cannot be read") from error
        except ValueError as error:
            exit_with(error, trace=False)
    assert exit_info.value.code == 143 and capfd.readouterr().err == "findistill: interrupted; run the same command to resume\n"


@pytest.fixture
def terminated(installed: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Run the command with an argument, and assert that it exits as terminated by SIGTERM."""

    def run(argument: str) -> None:
        monkeypatch.setattr(cli, "configure_log", lambda: None)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["findistill", argument])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        assert exit_info.value.code == 143
        assert capfd.readouterr().err == "findistill: interrupted; run the same command to resume\n"

    return run


def test_it_arrives_while_an_error_is_put_into_words(terminated: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def word(error: BaseException) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        return "no such setting"

    monkeypatch.setattr(errors, "message", word)
    terminated("no.such=1")


def test_a_training_that_ends_itself_is_interrupted(
    installed: None, encoder, trainer, labels, corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning records a SIGTERM and, if Python dropped the interrupt, exits with code 0 at the next step."""

    def terminate(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    monkeypatch.setattr(termination, "AGAIN_S", 60.0)
    step = MeasuredModule.training_step
    monkeypatch.setattr(MeasuredModule, "training_step", lambda *a: (type("Kind", (), {"__del__": terminate})(), step(*a))[1])
    with pytest.raises(KeyboardInterrupt):
        fit(encoder, None, labels, corpus.train, corpus.validation, Session(trainer, tmp_path / "run"))


def test_a_library_that_exits_because_of_it_does_not_choose_the_exit_code(
    terminated: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        sys.exit(0)

    monkeypatch.setattr(cli, "run", run)
    terminated("stage=student")


def test_cleaning_up_is_not_interrupted(installed: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            termination.acknowledge()
            os.kill(os.getpid(), signal.SIGTERM)  # Slurm signals every process of a step, then the script again
            time.sleep(0.3)  # three times the interval at which it is repeated


def test_cleaning_up_that_hangs_is_cut() -> None:
    program = (
        "import os, signal, time; from findistill.core import termination; termination.CLEANUP_S = 0.3; termination.install()\n"
        "try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)\n"
        "finally: termination.acknowledge(); time.sleep(20)"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 143 and time.monotonic() - started < 10
    assert result.stderr == "findistill: interrupted; run the same command to resume\n"


def test_it_ends_a_process_whose_ctrl_c_is_ignored() -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); from findistill.core import termination;"
        "termination.install()\n"
        "try: print('ready', flush=True); time.sleep(20)\nexcept KeyboardInterrupt: raise SystemExit(7)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(10) == 7

"""Progress of long work: a bar on a terminal; elsewhere (Slurm logs, CI, nohup) a log line a minute.

The newest line also lies in the folder of the job that this process runs, for `stage=status`.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from findistill.core.files import write_whole
from findistill.core.plan import duration
from findistill.core.run_folder import PROGRESS

log = logging.getLogger(__name__)

INTERVAL_S = 60.0  # between two lines of a log
NOTED_S = 5.0  # between two lines in the run folder

_folders: list[Path] = []  # of the jobs that run in this process, the innermost last
_noted = -NOTED_S


@contextmanager
def noted_in(folder: Path) -> Iterator[None]:
    """Keep the newest line of progress in `folder` until the block ends."""
    _folders.append(folder)
    try:
        yield
    finally:
        _folders.pop()
        (folder / PROGRESS).unlink(missing_ok=True)


def _note(line: str) -> None:
    global _noted
    if _folders and time.monotonic() - _noted > NOTED_S:
        _noted = time.monotonic()
        with suppress(OSError):  # a full disk ends the job where it loses something
            write_whole(_folders[-1] / PROGRESS, f"{line}\n")


class ProgressMeter(tqdm):
    """A tqdm bar; where stderr is no terminal, lines with the count, the rate and the time left.

    The first line comes after `INTERVAL_S`, so short work prints none; tqdm's monitor thread sees to it that a single slow
    batch does not keep the next one back.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.as_lines = not sys.stderr.isatty()
        if self.as_lines:
            options |= {"delay": INTERVAL_S, "mininterval": INTERVAL_S, "maxinterval": INTERVAL_S}
        super().__init__(*arguments, **({"leave": False} | options))

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        if msg is None:  # tqdm clears its line with an empty message
            _note(self._line())
        if not self.as_lines:
            return super().display(msg, pos)
        if msg is None:
            log.info("%s", self._line())
        return None

    def _line(self) -> str:
        state = self.format_dict
        count, total = state["n"], state["total"]
        unit = state["unit"] + ("es" if state["unit"].endswith("ch") else "s")
        rate = (count - state["initial"]) / state["elapsed"] if state["elapsed"] else 0.0
        share = f" of {total:,} {unit} ({count / total:.0%})" if total else f" {unit}"
        remaining = f", about {duration((total - count) / rate)} left" if total and rate else ""
        notes = f"; {state['postfix']}" if state["postfix"] else ""
        return f"{state['prefix'].rstrip(': ')}: {count:,}{share}, {rate:.3g} {unit}/s{remaining}{notes}"

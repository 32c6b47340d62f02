"""Progress of long work: a bar on a terminal; elsewhere (Slurm logs, CI, nohup) one log line per minute.

The latest line is also written to the run folder of the current job, for `stage=status`.
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

INTERVAL_S = 60.0  # between two log lines
NOTED_S = 5.0  # between two updates in the run folder

_folders: list[Path] = []  # of the jobs running in this process, the innermost last
_noted = -NOTED_S


@contextmanager
def noted_in(folder: Path) -> Iterator[None]:
    """Write the latest progress line to `folder` until the block ends."""
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
        with suppress(OSError):  # a full disk fails the job where it would lose data, not here
            write_whole(_folders[-1] / PROGRESS, f"{line}\n")


class ProgressMeter(tqdm):
    """A tqdm bar; if stderr is no terminal, log lines with the count, the rate and the time left.

    The first line comes after `INTERVAL_S`, so short work prints none; thanks to tqdm's monitor thread, a single slow batch
    does not delay the next line.
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

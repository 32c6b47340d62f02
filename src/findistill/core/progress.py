"""Progress of long work: a bar on a terminal; elsewhere (Slurm logs, CI, nohup) a log line a minute."""

import logging
import sys
from typing import Any

from tqdm import tqdm

from findistill.core.plan import duration

log = logging.getLogger(__name__)

INTERVAL_S = 60.0  # between two lines of a log


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
        if not self.as_lines:
            return super().display(msg, pos)
        if msg is None:  # tqdm clears its line with an empty message
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

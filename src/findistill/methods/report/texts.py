"""Which texts a report may show: those of data sets whose licence allows it, and the user's own."""

import logging
from collections.abc import Iterable

from findistill.core.files import read_json
from findistill.core.store import Store
from findistill.report.licences import licence_of
from findistill.report.methods import Run
from findistill.report.runs import Entry

log = logging.getLogger(__name__)

OWNERS = "the owner's"  # the licence of the user's own files


def may_be_shown(licence: str) -> bool:
    """Whether a data card's licence (its exact wording) allows sharing its texts; the user's own files always do."""
    return licence == OWNERS or licence_of(licence).texts


def texts_to_show(runs: Iterable[Run], entries: Iterable[Entry], store: Store) -> dict[str, dict[str, str]]:
    """Data set -> id -> text, from the predictions of jobs; data sets whose licence forbids it are logged.

    A job that read several data sets shows no texts unless all of them may be shown: its test rows may come from any.
    """
    texts: dict[str, dict[str, str]] = {}
    refused: dict[str, str] = {}
    jobs = {entry.folder for entry in entries}
    for run in (run for run in runs if run.folder in jobs and "text" in run.predictions):
        assert run.folder is not None
        artifacts = read_json(run.folder / "artifacts.json") if (run.folder / "artifacts.json").exists() else {}
        paths = [store.root / str(name) / "card.json" for name in artifacts.values()]
        cards = [read_json(path) for path in paths if path.exists()]
        closed = {card["name"]: card["licence"] for card in cards if not may_be_shown(card["licence"])}
        name = str(run.config["data"]["name"])
        if cards and not closed:
            texts.setdefault(name, {}).update(zip(run.predictions["id"].astype(str), run.predictions["text"], strict=True))
        refused |= closed or ({} if cards else {name: "unknown, since its artifact is missing"})
    for name, licence in refused.items():
        log.warning("report.texts=true: texts of %s are not shown; licence: %s", name, licence)
    return texts

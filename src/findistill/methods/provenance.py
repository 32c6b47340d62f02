"""Everything that went into a model or annotations, with licences, citations and cost, read from the graph of steps."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard
from huggingface_hub.repocard_data import CardData
from yaml import YAMLError

from findistill.config.fields import declares
from findistill.core.files import read_json
from findistill.core.step import ModelFolder, Step
from findistill.core.store import Store, Work, artifact_seconds
from findistill.data.dataset import Dataset
from findistill.data.serialization import read_card
from findistill.methods.datasets import ALSO
from findistill.report.licences import Provenance, Source, model_licence
from findistill.report.model_card import hub_id, public_name

ANNOTATES = ("annotate", "extract", "augment")


def provenance(work: Work, without: Collection[str] = ()) -> Provenance:
    """The provenance of a step's output. Data sets used only for testing do not count.

    Args:
        without: roles of further parents that do not affect the output.
    """
    result, seen = Provenance(), set()
    for role, step in _walk("", work.step, without):
        if (step.name, step.key) in seen:
            continue
        seen.add((step.name, step.key))
        result.sources += [source for source in _sources(role, step, work.store) if source not in result.sources]
        folder = work.store.folder(step)
        if isinstance(step, Dataset):
            result.datasets += [step.section.hub_id] if step.section.hub_id else []
            result.notes += read_card(folder).notes
        elif isinstance(step, ModelFolder):
            result.datasets += _as_list(card_of(str(step.reference)).get("datasets"))
        elif step is not work.step:
            result.seconds[step.name] = result.seconds.get(step.name, 0.0) + artifact_seconds(folder)
            usd = _usd(step, folder)
            result.usd = None if usd is None or result.usd is None else result.usd + usd
    result.datasets, result.notes = list(dict.fromkeys(result.datasets)), list(dict.fromkeys(result.notes))
    return result


def _walk(role: str, step: Step, without: Collection[str] = ()) -> Iterator[tuple[str, Step]]:
    """The ancestors and the step itself, each with its role, without data sets used only for testing."""
    for name, parent in step.inputs.items():
        if not name.startswith(ALSO) and name not in without:
            yield from _walk(name, parent)
    yield role, step


def _sources(role: str, step: Step, store: Store) -> Iterator[Source]:
    if isinstance(step, Dataset):
        card = read_card(store.folder(step))
        yield Source(
            "demonstrations" if role == "shots" else "texts", card.name, card.licence, step.section.hub_id, card.citation
        )
        return
    taught = role.startswith("teacher") and isinstance(step, ModelFolder)
    ready = role == "annotations" and isinstance(step, ModelFolder)
    kind = "annotations" if ready else "annotator" if step.name in ANNOTATES else "teacher" if taught else "weights"
    yield from (model_source(kind, model) for model in step.models())


def model_source(role: str, model: str) -> Source:
    """A model (folder, hub id or a server's name for it), named as cards name it: without local paths."""
    hub_name = hub_id(model)
    return Source(role, hub_name or public_name(model), licence_of_folder(model), hub_name)


def card_of(reference: str) -> CardData:
    """The header of a model's or data set's own card if it is on this machine; else empty."""
    for folder in (Path(reference) / "model", Path(reference)):
        if (folder / "README.md").is_file():
            with suppress(OSError, ValueError, YAMLError):  # a user's own README, without a header or with an invalid one
                return RepoCard.load(folder / "README.md", ignore_metadata_errors=True).data
    return CardData()


def licence_of_folder(reference: str) -> str:
    """The licence in a model's or data set's own card, else that of the hub id or provider."""
    card = card_of(reference)
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return str(stated) if stated else model_licence(hub_id(reference) or reference)


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _usd(step: Step, folder: Path) -> float | None:
    """The cost of an annotation artifact; None if no price is known.

    Local models are free, and an ensemble's members are separate artifacts.
    """
    if step.name not in ANNOTATES or any(role.startswith("member/") for role in step.inputs):
        return 0.0
    if declares(step.whole.llm, "local") or not declares(step.whole.llm, "writes"):
        return 0.0
    with suppress(OSError, ValueError, KeyError):
        usd: float | None = read_json(folder / "summary.json")["cost_usd"]
        return usd
    return 0.0

"""Rules for combining the settings of an annotator."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from findistill.config.expand import annotators
from findistill.config.fields import declares
from findistill.config.validate import missing
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.config import MEASURED, address_fault

FITTED = ("batch", "contextual", "pool")  # calibrations of label probabilities


def annotator(config: Any) -> Iterator[str]:
    """Rules for a job that annotates with `llm`."""
    annotate = config.annotate
    yield from missing(config, "llm")
    if declares(config.data, "has_spans"):
        return  # rejected by the stage
    if config.data.labels:  # otherwise they come from the rows, which are not read yet
        try:
            LabelSet(tuple(config.data.labels)).words(config.prompt.wording)
        except UserError as error:
            yield str(error)
    if annotate.combine != "majority" and len(annotate.ensemble) < 2:
        yield f"annotate.combine={annotate.combine} combines several annotators: list two or more in annotate.ensemble"
    if annotate.combine in MEASURED and (config.stage.name == "augment" or config.augment.use):
        yield f"annotate.combine={annotate.combine} learns from labelled rows: for augmentation, use majority or dawid_skene"
    yield from of_each(config, _member)
    if annotate.combine in MEASURED and len({repr(member.shots.source) for member in annotate.ensemble}) > 1:
        yield (
            f"annotate.combine={annotate.combine} compares annotators on the same labelled rows, and members have different "
            "shots.source; give all the same, or use majority or dawid_skene"
        )


def of_each(config: Any, rules: Callable[[Any], Iterator[str]]) -> Iterator[str]:
    """What the rules say about each annotator; about a member of the ensemble, with its place."""
    for number, member in enumerate(annotators(config)):
        place = f"annotate.ensemble[{number}]: " if config.annotate.ensemble else ""
        yield from (place + message for message in rules(member))


def _member(config: Any) -> Iterator[str]:
    """Rules for one annotator: `llm`, or a member of the ensemble."""
    annotate, llm = config.annotate, config.llm
    yield from requests(config)
    if declares(llm, "recorded"):
        return
    if annotate.calibration in FITTED and (config.prompt.steps or not declares(llm, "in_process")):
        yield _no_probabilities(annotate)
    yield from _demonstrations(config)


def requests(config: Any) -> Iterator[str]:
    """Rules for anything requested from `llm`, or read from its file."""
    annotate, llm = config.annotate, config.llm
    if declares(llm, "recorded"):
        yield from _recorded(config)
        return
    if annotate.samples > 1 and annotate.temperature == 0:
        yield (
            f"annotate.temperature=0 makes all {annotate.samples} samples identical, which would look like full "
            "agreement; raise it, or set annotate.samples=1"
        )
    if annotate.stop_at is not None and annotate.stop_at > annotate.samples:
        yield f"annotate.stop_at={annotate.stop_at} can never be reached with annotate.samples={annotate.samples}"
    address = OmegaConf.select(llm, "base_url", default=None)
    if fault := address_fault(address):
        yield fault
    yield from _budget(annotate, llm)


def _recorded(config: Any) -> Iterator[str]:
    annotate, path = config.annotate, OmegaConf.select(config, "llm.path", default=None)
    if path and not Path(path).is_file():
        yield f"llm.path={path}: {'a folder, not a file' if Path(path).is_dir() else 'no such file'}"
    if config.stage.name in ("augment", "fewshot") or config.augment.use:
        yield f"llm={config.llm.name} generates no text: use it with stage=annotate or student, and without augment.use"
    if annotate.dry_run or annotate.max_cost_usd is not None:
        yield f"annotate.dry_run and annotate.max_cost_usd apply to requests, and llm={config.llm.name} sends none; remove them"
    if annotate.calibration in FITTED:
        yield _no_probabilities(annotate)


def _no_probabilities(annotate: Any) -> str:
    return (
        f"annotate.calibration={annotate.calibration} needs label probabilities: "
        "use prompt=direct with an in-process llm such as llm=smollm2"
    )


def _budget(annotate: Any, llm: Any) -> Iterator[str]:
    budget = annotate.max_cost_usd
    if budget is not None and budget <= 0:
        yield f"annotate.max_cost_usd={budget:g} must be positive; annotate.dry_run=true prints what the annotation would cost"
    elif budget is not None and None in (llm.price.per_million_in, llm.price.per_million_out):
        yield (
            f"annotate.max_cost_usd={budget:g} needs the price of llm={llm.name}: "
            "set llm.price.per_million_in and llm.price.per_million_out (US dollars per million tokens)"
        )


def _demonstrations(config: Any) -> Iterator[str]:
    shots, data = config.shots, config.data
    # A study of shots allows any k, as does data whose labels are not known yet: any remainder goes to random labels.
    if data.labels and config.stage.name != "fewshot" and shots.selection == "balanced" and shots.k % len(data.labels):
        yield (
            f"shots.k={shots.k} cannot be balanced over {len(data.labels)} labels; "
            f"use a multiple of {len(data.labels)}, or shots.selection=nearest"
        )
    if shots.k and not shots.source and not declares(data, "has_labels"):
        yield (
            f"data={data.name} has no labelled rows for shots.k={shots.k} demonstrations; "
            "name a labelled set, for example shots.source=tfns, or set shots.k=0"
        )

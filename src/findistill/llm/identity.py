"""The identity of an annotator: the settings that can change a response, and the content of its files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from findistill.config.fields import declares, result_settings
from findistill.core.hashing import content
from findistill.models.files import LINEAR_FEATURES, model_files

TUNED = "tune"  # `llm.adapter`: an adapter that a step trains first


# Built-in annotators: which weights they use, by the `model` of their section.
OWN_ANNOTATORS = {
    **LINEAR_FEATURES, "neighbours": LINEAR_FEATURES["embeddings"], "rules": (), "the teacher section": (),
    "recorded": ("recorded answers",),
}  # fmt: skip


def annotator_models(model: str) -> list[str]:
    """The models whose answers or weights an annotator uses, by the `model` of its section."""
    return [*OWN_ANNOTATORS.get(model, (model,))]


def llm_identity(llm: Any) -> dict[str, Any]:
    """The settings that can change a response, except files on this machine, which are identified by their content."""
    settings = {name: value for name, value in result_settings(llm).items() if name not in ("name", "adapter", "path")}
    if (adapter := getattr(llm, "adapter", "")) and adapter != TUNED and not model_files(adapter):
        settings["adapter"] = adapter  # a hub id is its own identity
    if settings.get("_target_", "findistill.").startswith("findistill."):  # the other settings distinguish built-in engines
        del settings["_target_"]
    return settings


def request_identity(llm: Any) -> dict[str, Any]:
    """The annotator's part of every request key: the same weights are the same annotator, wherever they are stored."""
    adapter, path = getattr(llm, "adapter", ""), getattr(llm, "path", "")
    identity = llm_identity(llm)
    if declares(llm, "local") and Path(str(llm.model)).exists():
        identity["model"] = content(model_files(llm.model))
    if adapter:
        weights = [file for file in model_files(adapter) if file.name.startswith("adapter_model.")]
        identity["adapter"] = content(weights) if weights else adapter  # a hub id is its own identity
    if path:
        identity["responses"] = content([Path(path)])
    return identity


def llm_files(llm: Any) -> Iterable[Path]:
    """Weights, tokenizer and adapter on this machine, or the file of recorded responses; none for a server or a hub id."""
    if path := getattr(llm, "path", ""):
        return [Path(path)]
    if not declares(llm, "local"):
        return []
    adapter = llm.adapter if llm.adapter != TUNED else ""
    return [*model_files(llm.model), *(model_files(adapter) if adapter else [])]


def selected(where: Mapping[str, Any] | None) -> str:
    """The recorded answers that `llm.where` selects, in words: the values of its columns, joined by `or`."""
    return " ".join(" or ".join(values) for values in alternatives(where).values())


def alternatives(where: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """The values that `llm.where` accepts in each of its columns: one, or any of a list."""
    lists = {column: [*value] if isinstance(value, list | ListConfig) else [value] for column, value in (where or {}).items()}
    return {column: [str(each) for each in values] for column, values in lists.items()}

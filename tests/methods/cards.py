"""Offline checks of a card: huggingface_hub's `validate` would post it to the hub."""

import re
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, ModelCard, RepoCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id

LICENCES = {  # the hub's identifiers
    "cc0-1.0", "pddl", "mit", "bsd-3-clause", "apache-2.0", "odc-by", "cc-by-3.0", "cc-by-4.0", "odbl", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "gemma", "llama2", "llama3", "llama3.1", "cc-by-nd-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "other", "unknown",
}  # fmt: skip
LIBRARIES = ("transformers", "peft", "onnx", "gliner", "span-marker", "findistill")
SECTIONS = ("Intended use", "Limits", "Licence", "Citation")


def _common(path: Path, card: RepoCard) -> dict:
    text = path.read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header == yaml.safe_load(card.data.to_yaml())  # the hub's own classes lose nothing
    assert header["license"] in LICENCES and ("license_name" in header) == (header["license"] == "other")
    assert "findistill" in header["tags"] and all(value not in (None, "", []) for value in header.values())
    body = card.text
    assert not re.search(r"(?<![\w.:/])/(?:tmp|home|root|work|Users)/", text), "a path of this machine"
    assert not re.search(r"\bNone\b|\bnan\b|Undefined|\{\{|\}\}", body), body
    assert "\n\n\n" not in body.strip()
    return header


def valid_model_card(folder: Path) -> ModelCard:
    """Load and check the card of a model folder."""
    card = ModelCard.load(folder / "README.md")
    header = _common(folder / "README.md", card)
    assert header["library_name"] in LIBRARIES and header["pipeline_tag"]
    for name in [*filter(None, [header.get("base_model")]), *header.get("datasets", [])]:
        validate_repo_id(name)
    if "model-index" in header:
        name, results = model_index_to_eval_results(header["model-index"])
        assert eval_results_to_model_index(name, results) == header["model-index"]
        assert results == card.data.eval_results and {one.metric_type for one in results} == set(header["metrics"])
    assert [title for title in SECTIONS if f"\n## {title}\n" not in card.text] == []
    assert "```" in card.text  # the code to load it
    return card


def valid_dataset_card(folder: Path) -> DatasetCard:
    """Load and check the card of a data set folder."""
    card = DatasetCard.load(folder / "README.md")
    header = _common(folder / "README.md", card)
    assert header["task_categories"] == ["text-classification"] and header["annotations_creators"] == ["machine-generated"]
    for config in header["configs"]:
        assert (folder / config["data_files"]).is_file()
    for name in header.get("source_datasets", []):
        validate_repo_id(name)
    return card


def scores(card: ModelCard) -> dict[str, float]:
    """The evaluation results by displayed name."""
    return {str(one.metric_name): one.metric_value for one in card.data.eval_results or []}

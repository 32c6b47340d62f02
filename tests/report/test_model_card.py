"""Model cards: hub metadata that a plain `ModelCard.load` reads back, without a hub."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from findistill.methods.finetune.card import write_classifier_card
from findistill.methods.qlora.card import write_adapter_card
from findistill.report.model_card import hub_id, licence_metadata
from tests.fixtures.composing import composed

METRICS = {"test/accuracy": 0.81234, "test/macro_f1": 0.79, "time/train_s": 3.0}
LABELS = ("negative", "neutral", "positive")


def test_scores_licence_and_base_become_metadata(tmp_path: Path) -> None:
    config = composed("stage=teacher", "data=demo")
    card = ModelCard.load(write_classifier_card(tmp_path, config, LABELS, 1234, "CC BY-NC-SA 3.0", METRICS))
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (card.data.license, card.data.pipeline_tag) == ("cc-by-nc-sa-3.0", "text-classification")
    found = {(one.metric_type, one.metric_name): one.metric_value for one in card.data.eval_results or []}
    assert found == {("accuracy", "Accuracy"): 0.8123, ("f1", "Macro F1"): 0.79}
    assert "| texts | 1,234 of demo |" in card.text and 'pipeline("text-classification"' in card.text


def test_an_adapter_names_the_weights_it_needs(tmp_path: Path) -> None:
    card = ModelCard.load(write_adapter_card(tmp_path, composed("stage=qlora", "data=demo"), LABELS, 60, "own", {}))
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct" and card.data.library_name == "peft"
    assert (card.data.license, card.data.license_name, card.data.eval_results) == ("other", "own", None)
    assert "# QLoRA of smollm2: negative, neutral, positive" in card.text


def test_a_local_folder_is_no_base_model_for_others(tmp_path: Path) -> None:
    assert hub_id(str(tmp_path)) is None and hub_id("runs/s/teacher-1/model") is None and hub_id(None) is None
    assert hub_id("ProsusAI/finbert") == "ProsusAI/finbert"


@pytest.mark.parametrize(
    ("licence", "identifier"), [("CC BY 4.0", "cc-by-4.0"), ("CC0 1.0", "cc0-1.0"), ("mixed: some CC0", "other")]
)
def test_licences_have_the_identifiers_of_the_hub(licence: str, identifier: str) -> None:
    assert licence_metadata(licence)["license"] == identifier

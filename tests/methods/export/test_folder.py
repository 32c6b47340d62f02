"""`export.format=torch`: a model folder to share, without anything specific to this machine."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from findistill.config.validate import validate
from findistill.core.files import read_json, write_json
from findistill.errors import UserError
from findistill.methods.qlora.card import write_adapter_card
from tests.fixtures.composing import composed
from tests.methods.cards import valid_model_card
from tests.methods.export.test_stage import run
from tests.report.test_model_card import LABELS, LEARNT, METRICS


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A run folder of an adapter for embedded weights, which peft records by their local path."""
    folder = tmp_path / "qlora-1" / "model"
    folder.mkdir(parents=True)
    write_adapter_card(folder, composed("stage=qlora"), LABELS, 60, LEARNT, METRICS)
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "/home/me/.cache/weights-1", "r": 8})
    write_json(folder / "tokenizer_config.json", {"name_or_path": "/home/me/.cache/weights-1", "model_max_length": 64})
    (folder / "adapter_model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    (folder / ".cache").mkdir()
    (folder / ".env").write_text("KEY=1")
    return folder.parent


def test_an_adapter_names_its_base_by_hub_id_and_nothing_of_this_machine(adapter: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", "stage=export", f"evaluate.model={adapter}", "export.format=torch") / "model"
    assert read_json(folder / "adapter_config.json") == {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": 8}
    assert read_json(folder / "tokenizer_config.json") == {"model_max_length": 64}
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json",
    }  # fmt: skip
    assert load_file(folder / "adapter_model.safetensors") == {} and valid_model_card(folder).data.library_name == "peft"
    assert read_json(adapter / "model" / "adapter_config.json")["base_model_name_or_path"].startswith("/home")  # unchanged


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"export.format=torch needs a run folder or a model folder with a card \(README.md\)"):
        validate(composed("stage=export", f"evaluate.model={tmp_path}", "export.format=torch"))

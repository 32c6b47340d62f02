"""Models as users have them: unusable ones are refused with a line that names the folder and the remedy."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForTokenClassification

from findistill.config.validate import validate
from findistill.errors import UserError
from findistill.models.causal_lm import load_base
from findistill.models.config import Encoder
from findistill.models.encoders import load, open_trained
from findistill.models.folder import problems
from tests.fixtures.composing import composed

NAMES = ("negative", "neutral", "positive")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with three labels and eight word pieces, as written by `save_pretrained`."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("classifier")
    (folder / "words.txt").write_text("\n".join(WORDS))
    BertTokenizer(vocab=str(folder / "words.txt")).save_pretrained(folder)
    (folder / "words.txt").unlink()
    AutoModelForSequenceClassification.from_config(_config()).save_pretrained(folder)
    return folder


def _config(**settings: Any) -> BertConfig:
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 8}
    return BertConfig(**{**sizes, "max_position_embeddings": 32, **labels, **settings})


def _edit(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **settings}))


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return changed


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def only_tokenizer_settings(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    _edit(folder, vocab_size=30522)
    _weights(lambda weights: weights.update({EMBEDDINGS: torch.zeros(30522, 8)}))(folder)


def larger_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["d"])
    tokenizer.save_pretrained(folder)


def in_checkpoints(folder: Path) -> None:
    for step in (500, 1000, 90):
        shutil.copytree(folder, folder.parent / f"checkpoint-{step}")
    shutil.rmtree(folder)
    folder.mkdir()
    for step in (500, 1000, 90):
        (folder.parent / f"checkpoint-{step}").rename(folder / f"checkpoint-{step}")


def weights_in_checkpoints(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "checkpoint-7")
    (folder / "model.safetensors").unlink()
    (folder.parent / "checkpoint-7").rename(folder / "checkpoint-7")


def adapter(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    shutil.rmtree(folder)
    get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"])).save_pretrained(folder)


def language_adapter(folder: Path) -> None:
    adapter(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "task_type": "CAUSAL_LM"}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def evil_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def cleared(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def forged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def broken_tokenizer(folder: Path) -> None:
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(content[: len(content) // 2])


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        emptied(folder)
        (folder / pattern).parent.mkdir(exist_ok=True)
        (folder / pattern).write_bytes(b"GGUF")

    return change


def sentence_transformer(folder: Path) -> None:
    (folder / "modules.json").write_text("[]")
    _edit(folder, architectures=["BertModel"])


def setfit(folder: Path) -> None:
    sentence_transformer(folder)
    (folder / "model_head.pkl").write_bytes(b"")


def entities(folder: Path) -> None:
    BertForTokenClassification(_config()).save_pretrained(folder)


def headless(folder: Path) -> None:
    _weights(lambda weights: [weights.pop(name) for name in list(weights) if name.startswith("classifier")])(folder)


EMBEDDINGS, QUERY = "bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"
SITUATIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no tokenizer": (no_tokenizer, r"has no tokenizer .*\n.*AutoTokenizer"),
    "tokenizer settings without its words": (only_tokenizer_settings, r"tokenizer has only \d+ tokens for 30,522 embeddings"),
    "tokenizer of a larger model": (larger_tokenizer, r"tokenizer has 9 tokens, but the model 8 embeddings"),
    "tokenizer cut": (broken_tokenizer, "cannot be loaded"),
    "checkpoints of a training": (in_checkpoints, r"give .*/model/checkpoint-1000$"),
    "weights in a checkpoint": (weights_in_checkpoints, r"give .*/model/checkpoint-7$"),
    "LoRA adapter of a classifier": (adapter, r"LoRA adapter of a classifier on .*\n.*num_labels=3\)\.merge_and_unload"),
    "LoRA adapter of a language model": (language_adapter, r"LoRA adapter of the language model .*\n.*llm.adapter="),
    "pickled weights": (pickled, r"only in pytorch_model.bin, a pickle.*\n.*convert it: python -c"),
    "a pickle that is no state": (evil_pickle, "only in pytorch_model.bin, a pickle"),
    "weights cut": (cut, "cannot be loaded"),
    "weights empty": (cleared, "cannot be loaded"),
    "weights forged": (forged, "cannot be loaded"),
    "weights not numbers": (_weights(lambda w: w[QUERY].fill_(float("nan"))), "damaged.*query.weight has 64 infinite or NaN"),
    "weights infinite": (_weights(lambda w: w[EMBEDDINGS][3].fill_(float("inf"))), "damaged.*word_embeddings"),
    "weights of a larger model": (_weights(lambda w: w.update({QUERY: torch.zeros(16, 16)})), "do not fit|cannot be loaded"),
    "weights of another architecture": (_weights(lambda w: w.pop(QUERY)), "weights lack .*query.weight"),
    "more labels than outputs": (
        lambda folder: _edit(folder, id2label=dict(enumerate("abcd")), label2id={}),
        "do not fit|cannot",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "has no config.json; it contains model.safetensors"),
    "configuration cut": (lambda folder: (folder / "config.json").write_text('{"a'), "config.json cannot be read"),
    "configuration of no object": (lambda folder: (folder / "config.json").write_text("[]"), "config.json is not a JSON object"),
    "unknown architecture": (lambda folder: _edit(folder, model_type="mystery"), "cannot be loaded"),
    "code of its own": (
        lambda folder: _edit(folder, model_type="own", auto_map={"AutoConfig": "x.Y"}),
        r"its own code \(auto_map",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no weights \(model.safetensors\)"),
    "empty folder": (emptied, "the folder is empty"),
    "no folder": (gone, "no such folder"),
    "ONNX": (replaced("model.onnx"), r"has ONNX weights.*stage=evaluate"),
    "ONNX of optimum": (replaced("onnx/model.onnx"), r"has ONNX weights"),
    "GGUF": (replaced("model.Q4.gguf"), r"has GGUF weights.*llm=endpoint"),
    "TensorFlow": (replaced("tf_model.h5"), "has TensorFlow weights"),
}
CLASSIFIERS: dict[str, tuple[Callable[[Path], Any], str]] = {  # usable only to start a training
    "sentence transformer": (sentence_transformer, r"BertModel.* has no classification head.\n.*stage=teacher teacher=/"),
    "SetFit": (setfit, r"SetFit model, whose head \(model_head.pkl\).*\n.*stage=teacher teacher=/"),
    "entities": (entities, "BertForTokenClassification.* labels tokens"),
    "no head": (headless, "weights lack classifier.bias and 1 more"),
    "a score": (lambda folder: _edit(folder, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}), "a score, not labels"),
    "several labels": (lambda folder: _edit(folder, problem_type="multi_label_classification"), "several labels to a text"),
}


def one_message(act: Callable[[], Any], folder: Path) -> str:
    with pytest.raises(UserError) as error:
        act()
    message = str(error.value)
    assert str(folder) in message and len(message.splitlines()) <= 2 and "Traceback" not in message
    return message


@pytest.mark.parametrize("situation", [*SITUATIONS, *CLASSIFIERS])
def test_a_folder_that_is_no_classifier(situation: str, classifier: Path, tmp_path: Path) -> None:
    change, expected = {**SITUATIONS, **CLASSIFIERS}[situation]
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    change(folder)
    assert re.search(expected, one_message(lambda: open_trained(folder), folder))


@pytest.mark.parametrize("situation", [each for each in SITUATIONS if each != "more labels than outputs"])
def test_a_folder_that_nothing_can_be_trained_from(situation: str, classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    SITUATIONS[situation][0](folder)
    encoder = Encoder(name="theirs", model=str(folder))
    one_message(lambda: load(encoder, NAMES, scalar=False, seed=0), folder)


@pytest.mark.parametrize("situation", CLASSIFIERS)
def test_another_head_is_no_obstacle_to_training(situation: str, classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    CLASSIFIERS[situation][0](folder)
    model, _ = load(Encoder(name="theirs", model=str(folder)), NAMES, scalar=False, seed=0)
    assert model.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("situation", ["weights cut", "pickled weights", "GGUF", "no configuration", "empty folder", "no folder"])
def test_a_folder_that_is_no_language_model(situation: str, classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    SITUATIONS[situation][0](folder)
    one_message(lambda: load_base(str(folder)), folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.gguf"])
def test_a_file_in_place_of_a_folder(name: str, classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    (folder / "model.gguf").touch()
    message = one_message(lambda: open_trained(folder / name), folder)
    assert f"{name} is a file" in message


def run_as_printed(message: str) -> None:
    """Run the code of the `python -c "..."` in a message."""
    code = re.search(r'python -c "([^"]*)"', message)
    assert code
    exec(code[1], {})


def test_the_conversion_of_pickled_weights_works_as_printed(classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    pickled(folder)
    run_as_printed(one_message(lambda: open_trained(folder), folder))
    assert torch.equal(*(open_trained(each)[0].classifier.weight for each in (folder, classifier)))


def test_an_adapter_is_put_together_as_printed(classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    shutil.copytree(classifier, tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    shutil.rmtree(folder)
    get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"])).save_pretrained(folder)
    run_as_printed(one_message(lambda: open_trained(folder), folder))
    assert open_trained(f"{folder}-whole")[0].config.num_labels == 3


def test_a_tokenizer_is_saved_as_printed(classifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    no_tokenizer(folder)
    run_as_printed(one_message(lambda: open_trained(folder), folder).replace("BASE'", f"{classifier}'"))
    open_trained(folder)


@pytest.mark.parametrize(
    "overrides",
    [
        ["stage=teacher", "teacher=folder", "teacher.model={}"],
        ["stage=student", "distill=cls", "student=folder", "student.model={}"],
        ["stage=student", "distill=logit", "distill.teacher={}"],
        ["stage=evaluate", "evaluate.model={}"],
        ["stage=export", "evaluate.model={}"],
    ],
)
def test_a_plan_looks_at_model_folders_before_anything_is_paid_for(
    overrides: list[str], classifier: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(classifier, tmp_path / "model"))
    config = composed(*(override.format(folder) for override in overrides))
    validate(config)
    no_tokenizer(folder)
    assert "has no tokenizer" in one_message(lambda: validate(config), folder)


def test_a_path_that_can_be_no_hub_id_is_a_folder_that_is_not_there() -> None:
    for model in ("runs/moon/latest-student", "./nowhere", "nowhere/model/"):
        assert list(problems(model)) == [f"the model {model}: no such folder"], model
    assert not [*problems("owner/name"), *problems("name")]

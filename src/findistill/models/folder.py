"""What a model folder is, looked at before and after transformers opens it: each way of being none that can be used, in a line.

transformers fills in what a folder lacks, with random weights or a tokenizer of five words, and says so in a log only.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

from findistill.core.files import read_json
from findistill.errors import UserError
from findistill.models.architecture import CODE
from findistill.models.heads import THRESHOLDS

TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ALIEN = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX", "onnx/*.onnx": "ONNX", "*.gguf": "GGUF"}
COVERED = 0.6  # of a model's embeddings that its tokenizer's tokens use at least; vocabularies are padded, not doubled
# What the weights of a folder do, by the end of their class's name in config.json, where they are no text classifier.
OTHER_HEADS = {
    "TokenClassification": "labels tokens, such as entities, not texts", "QuestionAnswering": "answers questions",
    "CausalLM": "is a language model", "ConditionalGeneration": "is a language model", "LMHeadModel": "is a language model",
    "MaskedLM": "fills masked words in; it has no classification head", "PreTraining": "has no classification head",
    "Model": "has no classification head",
}  # fmt: skip
CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; save_file({k: v.clone() for k, v in '
    "torch.load(sys.argv[1], weights_only=True).items()}, sys.argv[2], {'format': 'pt'})\""
)


def check_folder(model: str, where: str, *, classifier: bool = False) -> None:
    """Look at a local model folder before it is opened; a hub id passes.

    Args:
        model: as the user gave it.
        where: what `weights.locate` makes of it.
        classifier: its labels are to be used as they are.

    Raises:
        UserError: it is no folder, or lacks configuration, weights or tokenizer, or holds what is not read here.
    """
    path = Path(where)
    if not path.exists():
        if where.startswith((".", "/", "~")) or (path.parent != Path() and path.parent.exists()):
            raise UserError(f"the model {model}: no such folder")
        return
    if path.is_file():
        raise UserError(f"the model {model} is a file{_format(path)}; give the folder of its config.json: {path.parent}")
    files = sorted(file.name for file in path.iterdir())
    if not files:
        raise UserError(f"the model {model}: the folder is empty")
    weights = any(path.glob("*.safetensors"))
    if "adapter_config.json" in files and not (path / "model.safetensors").exists():
        raise UserError(_adapter(model, path))
    if classifier and (heads := [name for name in files if name.startswith(("model_head.", "config_setfit"))]):
        raise UserError(
            f"the model {model} is a SetFit model: its head ({heads[-1]}) is not read here.\n"
            f"Train a head on its body: stage=teacher teacher={path.resolve()} data=NAME"
        )
    inner = sorted((each.parent for each in path.glob("*/config.json")), key=_number)
    if (not weights or "config.json" not in files) and (own := [each for each in inner if any(each.glob("*.safetensors"))]):
        raise UserError(f"the model {model}: its weights are in a folder below: give {Path(model) / own[-1].name}")
    if not weights:
        raise UserError(_no_weights(model, path, files))
    if "config.json" not in files:
        raise UserError(f"the model {model} has no config.json; in it are {', '.join(files[:5])}")
    settings = _settings(model, path)
    if not any(name in files for name in TOKENIZERS):
        raise UserError(f"the model {model} has no tokenizer ({', '.join(TOKENIZERS[:3])}).\n{_tokenizer_remedy(settings, path)}")
    if classifier:
        _check_head(model, path, settings)


def check_opened(model: str, opened: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: Mapping[str, Any] | None) -> None:
    """Look at an opened model and its tokenizer.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` gives beside the model; None: nothing was loaded.

    Raises:
        UserError: weights are missing, have other sizes than the configuration says or are not finite, or the tokenizer is
            another model's. Weights of a head may lack where `info` was read for a model to train, see `begun`.
    """
    if info is not None:
        if mismatched := sorted(str(each[0]) if isinstance(each, tuple) else str(each) for each in info["mismatched_keys"]):
            raise UserError(f"the model {model}: config.json and weights do not fit: other sizes of {_first(mismatched)}")
        if missing := sorted(info["missing_keys"]):
            raise UserError(
                f"the model {model} is no trained classifier, or no whole one: its weights lack {_first(missing)}.\n"
                "Random numbers would stand in for them. Give a folder that was saved after training; stage=teacher trains one"
            )
    _check_finite(model, opened)
    rows = _embedding_rows(opened)
    if rows and len(tokenizer) > rows:
        raise UserError(
            f"the model {model}: its tokenizer has {len(tokenizer):,} tokens, the model {rows:,} embeddings; it is another "
            f"model's.\n{_tokenizer_remedy(opened.config.to_dict(), model)}"
        )
    if rows and len(tokenizer) < COVERED * rows:
        raise UserError(
            f"the model {model}: its tokenizer has only {len(tokenizer):,} tokens for {rows:,} embeddings; files of the "
            f"tokenizer are missing, or it is another model's.\n{_tokenizer_remedy(opened.config.to_dict(), model)}"
        )


def begun(info: Mapping[str, Any], opened: PreTrainedModel) -> dict[str, list[Any]]:
    """`info` of a model that is to be trained, without what may begin at random: its head, and a pooler."""
    prefix = f"{opened.base_model_prefix}."

    def below(key: Any) -> bool:
        name = str(key[0] if isinstance(key, tuple) else key)
        return name.startswith(prefix) and "pooler" not in name

    return {kind: [key for key in info[kind] if below(key)] for kind in ("missing_keys", "mismatched_keys")}


def _check_finite(model: str, opened: PreTrainedModel) -> None:
    for name, value in opened.named_parameters():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"the model {model}: its weights are damaged, {name} holds {int((~torch.isfinite(value)).sum()):,} numbers that "
                "are infinite or none (NaN).\nGive an earlier checkpoint, or train it again with trainer.precision=32"
            )


def _embedding_rows(opened: PreTrainedModel) -> int:
    """How many tokens the model knows; 0 where it has no table of them."""
    try:
        table = getattr(opened.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return 0
    return 0 if table is None or table.dim() != 2 else len(table)


def _settings(model: str, path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"the model {model}: config.json cannot be read ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"the model {model}: config.json is no JSON object")
    kind = settings.get("model_type")
    if settings.get("auto_map") and kind not in CONFIG_MAPPING:
        raise UserError(
            f"the model {model} brings code of its own (auto_map in its config.json), which findistill does not run.\n"
            "Give a model of an architecture that transformers has"
        )
    return settings


def _check_head(model: str, path: Path, settings: dict[str, Any]) -> None:
    """Raise UserError unless the configuration is that of a classifier that gives one label to a text."""
    kinds = settings.get("architectures") or [""]
    kind = str(kinds[0]) if isinstance(kinds, list) else ""
    train = f"Train a classifier on it: stage=teacher teacher={path.resolve()} data=NAME"
    if CODE not in settings and kind and "SequenceClassification" not in kind:
        what = next((words for end, words in OTHER_HEADS.items() if kind.endswith(end)), "is no text classifier")
        raise UserError(f"the model {model} ({kind}) {what}.\n{train}")
    if settings.get("problem_type") == "multi_label_classification":
        raise UserError(
            f"the model {model} gives several labels to a text (problem_type=multi_label_classification in its config.json); "
            f"findistill gives one.\n{train}"
        )
    labels = settings.get("id2label")
    outputs = len(labels) if isinstance(labels, dict) else settings.get("num_labels")
    if not settings.get(THRESHOLDS) and (outputs == 1 or settings.get("problem_type") == "regression"):
        raise UserError(f"the model {model} gives a score, not labels (a regression head).\n{train}")


def _adapter(model: str, path: Path) -> str:
    try:
        settings = read_json(path / "adapter_config.json")
    except (OSError, ValueError):
        settings = {}
    base, task = settings.get("base_model_name_or_path") or "its base model", settings.get("task_type")
    if task == "SEQ_CLS":
        return (
            f"the model {model} is a LoRA adapter of a classifier on {base}, without the classifier itself.\n"
            "Add it to its base and save the whole, with the tokenizer: AutoPeftModelForSequenceClassification.from_pretrained("
            f"'{path}', num_labels=N).merge_and_unload().save_pretrained(FOLDER)"
        )
    return (
        f"the model {model} is a LoRA adapter of the language model {base}, no model of its own.\n"
        f"Use it with its base: llm.adapter={path}"
    )


def _no_weights(model: str, path: Path, files: list[str]) -> str:
    pickles = sorted(file for pattern in PICKLES for file in path.glob(pattern) if not file.name.startswith("training_args"))
    if pickles:
        name = pickles[0].name
        more = "" if len(pickles) == 1 or name != "pytorch_model.bin" else f" and {len(pickles) - 1} more"
        return (
            f"the model {model} has its weights in {name}{more} only, a pickle, which can run code and is not read.\n"
            f"If you trust it, convert it: {CONVERT} {path / name} {path / 'model.safetensors'}"
        )
    for pattern, kind in ALIEN.items():
        if file := next(iter(sorted(path.glob(pattern))), None):
            return f"the model {model} holds {kind} weights ({file.name}){_use(kind, file)}"
    return f"the model {model} has no weights (model.safetensors); in it are {', '.join(files[:5])}"


def _use(kind: str, file: Path) -> str:
    if kind == "ONNX":
        return f", which are scored, not trained or learnt from: stage=evaluate evaluate.model={file}"
    if kind == "GGUF":
        return ": the format of llama.cpp. Serve it, and annotate with llm=endpoint llm.base_url=ADDRESS"
    return ", which are not read here: save the model from PyTorch, as safetensors"


def _format(path: Path) -> str:
    kind = next((kind for pattern, kind in ALIEN.items() if path.match(pattern)), None)
    return f" of {kind} weights{_use(kind, path)}" if kind else ""


def _tokenizer_remedy(settings: Mapping[str, Any], folder: Path | str) -> str:
    base = settings.get("_name_or_path") or "BASE"
    if base == str(folder):
        base = "BASE"
    note = "" if base != "BASE" else " (BASE: the model that it was trained from)"
    return (
        f'Save that of the model it was trained from beside it{note}: python -c "from transformers import AutoTokenizer as T; '
        f"T.from_pretrained('{base}').save_pretrained('{folder}')\""
    )


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _number(folder: Path) -> tuple[int, str]:
    """The order of checkpoint-9, checkpoint-10."""
    digits = re.search(r"\d+$", folder.name)
    return int(digits[0]) if digits else -1, folder.name

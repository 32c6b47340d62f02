"""Checks of a model folder before transformers loads it, with an error for each way in which it is unusable.

transformers fills in what a folder lacks, with random weights or a tokenizer of five words, and only logs that. Plans
make these checks, too, so torch is not needed here.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from findistill.core import run_folder
from findistill.core.files import read_json
from findistill.core.hashing import damaged
from findistill.errors import UserError, first_line

# Keys in a saved model's config.json: its class, if transformers lacks it; labels and thresholds of a scalar head.
CODE, LABELS, THRESHOLDS = "findistill_code", "findistill_labels", "findistill_thresholds"
ADAPTER_PROMPT = "prompt.json"  # next to an adapter: the model, prompt and labels that it was tuned on (`llm.label_reader`)
GLINER_CONFIG = "gliner_config.json"  # of the package gliner, which writes no config.json
LINEAR = "findistill_linear"  # the features of a linear classifier (`models.linear`), which is not a transformers model
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ALIEN = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX", "onnx/*.onnx": "ONNX", "*.gguf": "GGUF"}
# What models that are not text classifiers do, by the end of their class name in config.json.
OTHER_HEADS = {
    "TokenClassification": "labels tokens, such as entities, not texts", "QuestionAnswering": "answers questions",
    "CausalLM": "is a language model", "ConditionalGeneration": "is a language model", "LMHeadModel": "is a language model",
    "MaskedLM": "fills in masked words; it has no classification head", "PreTraining": "has no classification head",
    "Model": "has no classification head",
}  # fmt: skip


def check_folder(model: str, where: str, use: str = "", *, tokenizer: bool = True) -> None:
    """Check a local model folder before it is loaded; a hub id passes.

    Args:
        model: as the user gave it.
        where: what `weights.locate` returns for it.
        use: `classifier` or `token classifier`, to be used with its own labels; `language model`; empty: to be trained.
        tokenizer: whether one is needed.

    Raises:
        UserError: it is not a folder, lacks configuration, weights or tokenizer, or is of a kind that is not supported.
    """
    path = Path(where)
    if not path.exists():
        hub_id = where.count("/") <= 1 and not where.startswith((".", "/", "~"))  # NAME or OWNER/NAME
        if not hub_id or (path.parent != Path() and path.parent.exists()):
            raise UserError(f"the model {model}: no such folder")
        return
    if path.is_file():
        raise UserError(f"the model {model} is a file{_format(path)}; give the folder with its config.json: {path.parent}")
    files = sorted(file.name for file in path.iterdir())
    if not files:
        raise UserError(f"the model {model}: the folder is empty")
    weights = any(path.glob("*.safetensors"))
    if "adapter_config.json" in files and not (path / "model.safetensors").exists():
        raise UserError(_adapter(model, path))
    if use == "classifier" and (heads := [name for name in files if name.startswith(("model_head.", "config_setfit"))]):
        raise UserError(
            f"the model {model} is a SetFit model, whose head ({heads[-1]}) is not supported.\n"
            f"Train a new head on its body: stage=teacher teacher={path.resolve()} data=NAME"
        )
    inner = sorted((each.parent for each in path.glob("*/config.json")), key=_number)
    if (not weights or "config.json" not in files) and (own := [each for each in inner if any(each.glob("*.safetensors"))]):
        raise UserError(f"the model {model}: its weights are in a subfolder: give {Path(model) / own[-1].name}")
    if not weights:
        raise UserError(_no_weights(model, path, files))
    if "config.json" not in files:
        raise UserError(f"the model {model} has no config.json; it contains {', '.join(files[:5])}")
    settings = _settings(model, path)
    _check_files(model, path)
    if LINEAR in settings:
        if use == "classifier":
            return
        raise UserError(f"the model {model} is logistic regression on {settings[LINEAR]}: there are no weights to start from")
    if tokenizer and not any(name in files for name in TOKENIZERS):
        raise UserError(f"the model {model} has no tokenizer ({', '.join(TOKENIZERS[:3])}).\n{tokenizer_remedy(settings, path)}")
    if use == "classifier":
        _check_head(model, path, settings)
    if use == "token classifier" and not (kind := _class(settings)).endswith("TokenClassification"):
        raise UserError(
            f"the model {model} ({kind or 'class unknown'}) is not a token classifier.\n"
            f"Train one on it: stage=entities entities.model=token entities.token.encoder={path.resolve()} data=NAME"
        )
    if use == "language model" and (kind := _class(settings)).endswith("Classification"):
        raise UserError(
            f"the model {model} ({kind}) is a classifier, not a language model: use stage=evaluate evaluate.model={path}"
        )


def problems(model: str | None, use: str = "") -> Iterator[str]:
    """`check_folder` as a rule of the configuration."""
    if model and model.partition(":")[0] != "embedded":
        inner = Path(model) / "model"
        try:
            check_folder(model, str(inner if (inner / "config.json").exists() else model), use)
        except UserError as error:
            yield str(error)


def is_onnx(path: Path) -> bool:
    """Whether this is an ONNX file, or a folder with ONNX files and without torch weights."""
    torch = (path / "model" / "config.json").exists() or any(path.glob("*.safetensors"))
    return path.suffix == ".onnx" or (not torch and any((*path.glob("*.onnx"), *path.glob("onnx/*.onnx"))))


def is_gliner(path: Path) -> bool:
    """Whether this is the folder of a GLiNER, or of a run that trained one."""
    return any((folder / GLINER_CONFIG).is_file() for folder in (path, path / "model"))


def adapter_folder(path: Path) -> Path | None:
    """The folder of a language model's adapter that findistill tuned: this one, or that in a run folder; None if neither."""
    return next((folder for folder in (path, path / "model") if (folder / ADAPTER_PROMPT).is_file()), None)


def adapter_base(folder: Path) -> str:
    """The base model of the adapter in a folder. Raises UserError like `adapter_prompt`."""
    model: str = adapter_prompt(folder)["llm"]["model"]
    return model


def adapter_prompt(folder: Path) -> dict[str, Any]:
    """What the adapter in a folder was tuned on: the `llm` and `prompt` settings, and the `labels`.

    Raises:
        UserError: the file cannot be read, or lacks one of them.
    """
    try:
        saved = read_json(folder / ADAPTER_PROMPT)
        llm, prompt, labels = dict(saved["llm"]), dict(saved["prompt"]), list(saved["labels"])
        return {"llm": llm | {"model": str(llm["model"])}, "prompt": prompt, "labels": labels}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the adapter {folder}: {ADAPTER_PROMPT} cannot be read ({first_line(error)}).\n"
            "Copy the folder again, or tune it again with stage=qlora"
        ) from error


def is_linear(model: str | Path) -> bool:
    """Whether a run folder or a model folder holds a linear classifier."""
    for place in (Path(model) / "model" / "config.json", Path(model) / "config.json"):
        with suppress(OSError, ValueError, TypeError):  # loading the model reports what is wrong with its folder
            return LINEAR in read_json(place)
    return False


def _check_files(model: str, path: Path) -> None:
    """Raise UserError if weights or tokenizer are truncated, or if weights have changed since their job wrote them."""
    for file in sorted([*path.glob("*.safetensors"), *path.glob("tokenizer*.json")]):
        if fault := _fault(file, file.stat().st_mtime_ns):
            raise UserError(
                f"the model {model} cannot be loaded: {file.name} is truncated or damaged ({fault}).\n"
                "Copy the folder again, or train the model again"
            )
    written = run_folder.status(path.parent).get("files", {})
    weights = {name: seal for name, seal in written.items() if Path(name).match(f"{path.name}/*.safetensors")}
    if name := damaged(path.parent, weights):
        raise UserError(
            f"the model {model}: {name} has changed since its job wrote it.\n"
            "Run the job's command again to recreate it, or copy the folder elsewhere to use it as it is"
        )


@cache
def _fault(file: Path, changed: int) -> str | None:
    """What is wrong with a file last changed at this time (ns), by the header of weights or the content of JSON; else None."""
    try:
        if file.suffix == ".json":
            read_json(file)
        else:
            with safe_open(file, "numpy"):
                pass
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        return first_line(error)
    return None


def _settings(model: str, path: Path) -> dict[str, Any]:
    try:
        settings = read_json(path / "config.json")
    except (OSError, ValueError) as error:
        raise UserError(f"the model {model}: config.json cannot be read ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"the model {model}: config.json is not a JSON object")
    return settings


def _class(settings: Mapping[str, Any]) -> str:
    kinds = settings.get("architectures")
    return str(kinds[0]) if isinstance(kinds, list) and kinds else ""


def _check_head(model: str, path: Path, settings: dict[str, Any]) -> None:
    """Raise UserError unless the configuration is that of a classifier that assigns one label to a text."""
    kind = _class(settings)
    train = f"Train a classifier on it: stage=teacher teacher={path.resolve()} data=NAME"
    if CODE not in settings and kind and "SequenceClassification" not in kind:
        what = next((words for end, words in OTHER_HEADS.items() if kind.endswith(end)), "is not a text classifier")
        raise UserError(f"the model {model} ({kind}) {what}.\n{train}")
    if settings.get("problem_type") == "multi_label_classification":
        raise UserError(
            f"the model {model} assigns several labels to a text (problem_type=multi_label_classification in its config.json); "
            f"findistill assigns one.\n{train}"
        )
    labels = settings.get("id2label")
    outputs = len(labels) if isinstance(labels, dict) else settings.get("num_labels")
    if not settings.get(THRESHOLDS) and (outputs == 1 or settings.get("problem_type") == "regression"):
        raise UserError(f"the model {model} returns a score, not labels (a regression head).\n{train}")


def _adapter(model: str, path: Path) -> str:
    try:
        settings = read_json(path / "adapter_config.json")
    except (OSError, ValueError):
        settings = {}
    base, task = settings.get("base_model_name_or_path") or "its base model", settings.get("task_type")
    if task == "SEQ_CLS":
        whole = f"{path}-whole"
        return (
            f"the model {model} is a LoRA adapter of a classifier on {base}, without the classifier itself.\n"
            f'Merge the two into {whole}: python -c "from peft import AutoPeftModelForSequenceClassification as M; from '
            f"transformers import AutoTokenizer as T; M.from_pretrained('{path}', num_labels={_outputs(path)}).merge_and_unload()"
            f".save_pretrained('{whole}'); T.from_pretrained('{base}').save_pretrained('{whole}')\" (and name its labels)"
        )
    return (
        f"the model {model} is a LoRA adapter of the language model {base}, not a complete model.\n"
        f"Use it with its base: llm.adapter={path}"
    )


def _outputs(adapter: Path) -> int | str:
    """The number of labels of an adapter's own copy of the head; N if unknown."""
    with suppress(OSError, SafetensorError), safe_open(adapter / "adapter_model.safetensors", "numpy") as weights:
        for name in weights.keys():  # noqa: SIM118
            if name.endswith(("classifier.weight", "score.weight", "out_proj.weight")):
                return int(weights.get_slice(name).get_shape()[0])
    return "N"


def _no_weights(model: str, path: Path, files: list[str]) -> str:
    pickles = sorted(file for pattern in PICKLES for file in path.glob(pattern) if not file.name.startswith("training_args"))
    if pickles:
        name = pickles[0].name
        more = "" if len(pickles) == 1 or name != "pytorch_model.bin" else f" and {len(pickles) - 1} more"
        return only_pickle(model, path / name, more)
    for pattern, kind in ALIEN.items():
        if file := next(iter(sorted(path.glob(pattern))), None):
            return f"the model {model} has {kind} weights ({file.name}){_use(kind, file)}"
    return f"the model {model} has no weights (model.safetensors); it contains {', '.join(files[:5])}"


def only_pickle(model: str, file: Path, more: str = "") -> str:
    """The error for weights that are only in a pickle, with how to convert them; `more` says what else there is."""
    return (
        f"the model {model} has its weights only in {file.name}{more}, a pickle, which can run code and is not read.\n"
        'If you trust it, convert it: python -c "import torch; from safetensors.torch import save_file; '
        f"save_file({{k: v.clone() for k, v in torch.load('{file}', weights_only=True).items()}}, "
        f"'{file.parent / 'model.safetensors'}', {{'format': 'pt'}})\""
    )


def _use(kind: str, file: Path) -> str:
    if kind == "ONNX":
        return f", which can be evaluated, but not trained or distilled from: stage=evaluate evaluate.model={file}"
    if kind == "GGUF":
        return ": the format of llama.cpp. Serve it, and annotate with llm=endpoint llm.base_url=ADDRESS"
    return ", which are not supported: save the model from PyTorch as safetensors"


def _format(path: Path) -> str:
    kind = next((kind for pattern, kind in ALIEN.items() if path.match(pattern)), None)
    return f" of {kind} weights{_use(kind, path)}" if kind else ""


def tokenizer_remedy(settings: Mapping[str, Any], folder: Path | str) -> str:
    """The command to run if a model's tokenizer is missing."""
    base = settings.get("_name_or_path") or "BASE"
    if base == str(folder):
        base = "BASE"
    note = "" if base != "BASE" else " (BASE: the model that it was trained from)"
    return (
        f'Save the tokenizer of its base model beside it{note}: python -c "from transformers import AutoTokenizer as T; '
        f"T.from_pretrained('{base}').save_pretrained('{folder}')\""
    )


def _number(folder: Path) -> tuple[int, str]:
    """A sort key that puts checkpoint-9 before checkpoint-10."""
    digits = re.search(r"\d+$", folder.name)
    return int(digits[0]) if digits else -1, folder.name

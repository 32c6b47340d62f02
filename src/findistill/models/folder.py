"""What a model folder is, looked at before transformers opens it: each way of being none that can be used, in a line.

transformers fills in what a folder lacks, with random weights or a tokenizer of five words, and says so in a log only. A
plan looks, too: torch is not needed here.
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

# Names in a saved model's config.json: its class, where that is not one of transformers'; labels and cuts of a scalar head.
CODE, LABELS, THRESHOLDS = "findistill_code", "findistill_labels", "findistill_thresholds"
ADAPTER_PROMPT = "prompt.json"  # beside an adapter: the model, prompt and labels that it was tuned on (`llm.label_reader`)
GLINER_CONFIG = "gliner_config.json"  # of the package gliner, which writes no config.json
LINEAR = "findistill_linear"  # which features a linear classifier has (`models.linear`), which is no model of transformers
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ALIEN = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.onnx": "ONNX", "onnx/*.onnx": "ONNX", "*.gguf": "GGUF"}
# What the weights of a folder do, by the end of their class's name in config.json, where they are no text classifier.
OTHER_HEADS = {
    "TokenClassification": "labels tokens, such as entities, not texts", "QuestionAnswering": "answers questions",
    "CausalLM": "is a language model", "ConditionalGeneration": "is a language model", "LMHeadModel": "is a language model",
    "MaskedLM": "fills masked words in; it has no classification head", "PreTraining": "has no classification head",
    "Model": "has no classification head",
}  # fmt: skip


def check_folder(model: str, where: str, use: str = "", *, tokenizer: bool = True) -> None:
    """Look at a local model folder before it is opened; a hub id passes.

    Args:
        model: as the user gave it.
        where: what `weights.locate` makes of it.
        use: `classifier` or `token classifier`, whose labels are to be used as they are; `language model`; empty, it is to be
            trained.
        tokenizer: whether one is needed.

    Raises:
        UserError: it is no folder, or lacks configuration, weights or tokenizer, or holds what is not read here.
    """
    path = Path(where)
    if not path.exists():
        hub_id = where.count("/") <= 1 and not where.startswith((".", "/", "~"))  # NAME or OWNER/NAME
        if not hub_id or (path.parent != Path() and path.parent.exists()):
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
    if use == "classifier" and (heads := [name for name in files if name.startswith(("model_head.", "config_setfit"))]):
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
            f"the model {model} ({kind or 'of no class'}) is no token classifier.\n"
            f"Train one on it: stage=entities entities.model=token entities.token.encoder={path.resolve()} data=NAME"
        )
    if use == "language model" and (kind := _class(settings)).endswith("Classification"):
        raise UserError(f"the model {model} ({kind}) is a classifier, no language model: stage=evaluate evaluate.model={path}")


def problems(model: str | None, use: str = "") -> Iterator[str]:
    """What `check_folder` says of a model as a rule of the configuration."""
    if model and model.partition(":")[0] != "embedded":
        inner = Path(model) / "model"
        try:
            check_folder(model, str(inner if (inner / "config.json").exists() else model), use)
        except UserError as error:
            yield str(error)


def is_onnx(path: Path) -> bool:
    """Whether this is an ONNX file, or a folder of such and not of torch weights."""
    torch = (path / "model" / "config.json").exists() or any(path.glob("*.safetensors"))
    return path.suffix == ".onnx" or (not torch and any((*path.glob("*.onnx"), *path.glob("onnx/*.onnx"))))


def is_gliner(path: Path) -> bool:
    """Whether this is the folder of a GLiNER, or of a run that trained one."""
    return any((folder / GLINER_CONFIG).is_file() for folder in (path, path / "model"))


def adapter_folder(path: Path) -> Path | None:
    """The folder of the language model's adapter that a run folder or a folder of its own holds, tuned by findistill."""
    return next((folder for folder in (path, path / "model") if (folder / ADAPTER_PROMPT).is_file()), None)


def adapter_base(folder: Path) -> str:
    """The model that the adapter in a folder is put on. Raises UserError as `adapter_prompt` does."""
    model: str = adapter_prompt(folder)["llm"]["model"]
    return model


def adapter_prompt(folder: Path) -> dict[str, Any]:
    """What the adapter in a folder was tuned on: the `llm` and `prompt` settings, and the `labels`.

    Raises:
        UserError: the file that says so cannot be read, or lacks one of them.
    """
    try:
        saved = read_json(folder / ADAPTER_PROMPT)
        llm, prompt, labels = dict(saved["llm"]), dict(saved["prompt"]), list(saved["labels"])
        return {"llm": llm | {"model": str(llm["model"])}, "prompt": prompt, "labels": labels}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"the adapter {folder}: {ADAPTER_PROMPT} cannot be read ({first_line(error)}).\n"
            "Copy the folder again, or tune it anew with stage=qlora"
        ) from error


def is_linear(model: str | Path) -> bool:
    """Whether a run folder or a model folder holds a linear classifier."""
    for place in (Path(model) / "model" / "config.json", Path(model) / "config.json"):
        with suppress(OSError, ValueError, TypeError):  # whoever opens another model says what is wrong with its folder
            return LINEAR in read_json(place)
    return False


def _check_files(model: str, path: Path) -> None:
    """Raise UserError for weights or a tokenizer that are cut, and weights that are not those that their job wrote."""
    for file in sorted([*path.glob("*.safetensors"), *path.glob("tokenizer*.json")]):
        if fault := _fault(file, file.stat().st_mtime_ns):
            raise UserError(
                f"the model {model} cannot be loaded: {file.name} is cut or damaged ({fault}).\n"
                "Copy the folder again, or train the model anew"
            )
    written = run_folder.status(path.parent).get("files", {})
    weights = {name: seal for name, seal in written.items() if Path(name).match(f"{path.name}/*.safetensors")}
    if name := damaged(path.parent, weights):
        raise UserError(
            f"the model {model}: {name} is not as its job wrote it.\n"
            "Run the job's command again, which makes it anew; a copy of the folder elsewhere is used as it is"
        )


@cache
def _fault(file: Path, changed: int) -> str | None:
    """What is wrong with a file as it was at a time (ns): weights by their header, JSON as a whole."""
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
        raise UserError(f"the model {model}: config.json is no JSON object")
    return settings


def _class(settings: Mapping[str, Any]) -> str:
    kinds = settings.get("architectures")
    return str(kinds[0]) if isinstance(kinds, list) and kinds else ""


def _check_head(model: str, path: Path, settings: dict[str, Any]) -> None:
    """Raise UserError unless the configuration is that of a classifier that gives one label to a text."""
    kind = _class(settings)
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
        whole = f"{path}-whole"
        return (
            f"the model {model} is a LoRA adapter of a classifier on {base}, without the classifier itself.\n"
            f'Put them together in {whole}: python -c "from peft import AutoPeftModelForSequenceClassification as M; from '
            f"transformers import AutoTokenizer as T; M.from_pretrained('{path}', num_labels={_outputs(path)}).merge_and_unload()"
            f".save_pretrained('{whole}'); T.from_pretrained('{base}').save_pretrained('{whole}')\" (and name its labels)"
        )
    return (
        f"the model {model} is a LoRA adapter of the language model {base}, no model of its own.\n"
        f"Use it with its base: llm.adapter={path}"
    )


def _outputs(adapter: Path) -> int | str:
    """How many labels an adapter's own copy of the head has; N where that is not known."""
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
            return f"the model {model} holds {kind} weights ({file.name}){_use(kind, file)}"
    return f"the model {model} has no weights (model.safetensors); in it are {', '.join(files[:5])}"


def only_pickle(model: str, file: Path, more: str = "") -> str:
    """The refusal of weights that are a pickle alone, with how to convert them; `more` says what else there is."""
    return (
        f"the model {model} has its weights in {file.name}{more} only, a pickle, which can run code and is not read.\n"
        'If you trust it, convert it: python -c "import torch; from safetensors.torch import save_file; '
        f"save_file({{k: v.clone() for k, v in torch.load('{file}', weights_only=True).items()}}, "
        f"'{file.parent / 'model.safetensors'}', {{'format': 'pt'}})\""
    )


def _use(kind: str, file: Path) -> str:
    if kind == "ONNX":
        return f", which are scored, not trained or learnt from: stage=evaluate evaluate.model={file}"
    if kind == "GGUF":
        return ": the format of llama.cpp. Serve it, and annotate with llm=endpoint llm.base_url=ADDRESS"
    return ", which are not read here: save the model from PyTorch, as safetensors"


def _format(path: Path) -> str:
    kind = next((kind for pattern, kind in ALIEN.items() if path.match(pattern)), None)
    return f" of {kind} weights{_use(kind, path)}" if kind else ""


def tokenizer_remedy(settings: Mapping[str, Any], folder: Path | str) -> str:
    """What to type where a model's tokenizer is missing."""
    base = settings.get("_name_or_path") or "BASE"
    if base == str(folder):
        base = "BASE"
    note = "" if base != "BASE" else " (BASE: the model that it was trained from)"
    return (
        f'Save that of the model it was trained from beside it{note}: python -c "from transformers import AutoTokenizer as T; '
        f"T.from_pretrained('{base}').save_pretrained('{folder}')\""
    )


def _number(folder: Path) -> tuple[int, str]:
    """The order of checkpoint-9, checkpoint-10."""
    digits = re.search(r"\d+$", folder.name)
    return int(digits[0]) if digits else -1, folder.name

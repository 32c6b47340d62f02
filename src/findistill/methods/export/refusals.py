"""What is never uploaded: secrets, pickles, rows of data sets next to a model, links to files elsewhere."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from findistill.config.fields import SECRET_NAME
from findistill.core.tracking import netrc_passwords
from findistill.models.folder import PICKLES

ROWS = ("*.csv", "*.tsv", "*.jsonl", "*.parquet", "*.arrow", "*.xlsx", "*.xls", "*.db", "*.sqlite")
MORE_PICKLES = (*PICKLES, "*.pickle", "*.joblib", "*.dill", "*.npz")
TEXT_BYTES = 20_000_000  # larger files are weights or tables, which nobody writes a key into
# Formats of keys: Hugging Face, OpenAI and similar, GitHub, AWS, Google, Slack, W&B, private keys. Older W&B keys look like a
# commit's hash, so they are matched only by their value in the environment or ~/.netrc.
KEYS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}\b"
    rb"|\bxox[abprs]-[A-Za-z0-9-]{10,}|wandb_v1_[A-Za-z0-9_]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
SHORTEST = 8  # characters of an environment value that counts as a secret
WEIGHTS = (".safetensors", ".onnx", ".npy")


def faults(folder: Path, paths: Sequence[Path], *, texts_allowed: bool | None) -> Iterator[str]:
    """Why some of these files are not uploaded, one line each; empty if all may be.

    Args:
        texts_allowed: for annotations, whether to include their texts; None for a model, which must not come with data rows.
    """
    secrets = _secrets()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            yield f"{name} is a link to a file outside the folder"
        elif any(path.match(pattern) for pattern in MORE_PICKLES) or _begins_as_pickle(path):
            yield f"{name} is a pickle, which runs code when it is opened"
        elif any(path.match(pattern) for pattern in ROWS) and (texts_allowed is None or (not texts_allowed and _has_texts(path))):
            yield f"{name} contains {'rows of a data set' if texts_allowed is None else 'texts that must not be uploaded'}"
        elif where := _secret_in(path, secrets):
            yield f"{name} contains a secret ({where})"


def _secrets() -> dict[bytes, str]:
    """The secret values in this environment and in ~/.netrc, with the variable or the host of each."""
    named = {name: value for name, value in os.environ.items() if SECRET_NAME.fullmatch(name)}
    named |= {f"{host} in ~/.netrc": password for host, password in netrc_passwords().items()}
    return {value.encode(errors="surrogateescape"): name for name, value in named.items() if len(value) >= SHORTEST}


def _secret_in(path: Path, secrets: dict[bytes, str]) -> str | None:
    if path.suffix in WEIGHTS or path.stat().st_size > TEXT_BYTES:
        return None
    content = path.read_bytes()
    if variable := next((name for value, name in secrets.items() if value in content), None):
        return f"the value of {variable}"
    return "it looks like a key" if KEYS.search(content) else None


def _begins_as_pickle(path: Path) -> bool:
    """Whether it is a pickle of protocol 2 to 5, whatever its name, or a NumPy array that contains one."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x93NUMPY"):
        return b"'|O'" in head
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _has_texts(path: Path) -> bool:
    if path.suffix != ".parquet":
        return True
    try:
        return bool({"text", "raw", "rationale"} & set(parquet.read_schema(path).names))
    except (OSError, pa.ArrowException):
        return True

"""A teacher's outputs for every text, computed once and read from disk by every student, term, layer map and seed.

Arrays (see `models.features`) are stored for real tokens only, by default as float16, concatenated in the order of the
texts, and memory-mapped. An artifact of kind `outputs` holds the arrays of one pass of the teacher; a job that needs
more of the same teacher and texts adds an artifact with what is missing, and none is ever computed twice.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from findistill.core.files import read_json, write_json
from findistill.core.progress import ProgressMeter
from findistill.core.store import record_of
from findistill.errors import UserError
from findistill.models.batches import pad
from findistill.models.features import Anatomy, read, row_shape, rows_of
from findistill.models.tokens import Tokens, sorted_batches

log = logging.getLogger(__name__)

CHUNK = 256  # texts whose outputs are held in memory before they are written
BATCH = 32  # texts in one forward pass

Making = Callable[[str, dict[str, Any], Callable[[Path], None]], Path]  # `Job.artifact`: kind, key, make -> folder


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's arrays for n texts; each may be memory-mapped. Text i has rows offsets[i]:offsets[i + 1]."""

    arrays: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]  # (n + 1,) int64 each

    def with_logits(self, logits: np.ndarray) -> "TeacherOutputs":
        """The same with these logits (n, labels)."""
        return replace(self, arrays={**self.arrays, "logits": logits})

    def rows(self, indexes: Sequence[int], names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The named arrays of these texts, concatenated, in the stored precision."""
        rows = {}
        for name in names:
            array, offsets = self.arrays[name], self.offsets[name]
            rows[name] = torch.from_numpy(np.concatenate([array[offsets[i] : offsets[i + 1]] for i in indexes]))
        return rows


def mean_logits(teachers: Sequence[np.ndarray]) -> np.ndarray:
    """(n, labels) float32: the mean over teachers, whose logits are (n, labels) of the same texts and labels.

    Each teacher's are scaled to the spread of the first one's, the standard deviation around each text's mean: otherwise the
    most confident would outvote the others, and logistic regression is less confident than a fine-tuned encoder.
    """
    each = [logits.astype(np.float32) for logits in teachers]
    spreads = [(logits - logits.mean(axis=1, keepdims=True)).std() for logits in each]
    scaled = [logits * (spreads[0] / spread) if spread else logits for logits, spread in zip(each, spreads, strict=True)]
    return np.asarray(np.mean(scaled, axis=0, dtype=np.float32))


def obtain(
    model: PreTrainedModel, anatomy: Anatomy, tokens: Tokens, requested: Sequence[str],
    *, artifact: Making, root: Path, limit_gb: float, dtype: str, device: torch.device,
) -> TeacherOutputs:  # fmt: skip
    """The requested arrays of `model` on `tokens`; those that no artifact under `root` holds are computed in one pass.

    Raises:
        UserError: all arrays stored for this teacher and these texts would need more than `limit_gb` gigabytes or than
            the disk has free; a value does not fit float16.
    """
    of = {"teacher": fingerprint(model), "tokens": _tokens_hash(tokens), "dtype": dtype}
    homes = _homes(root, of)
    missing = sorted(set(requested) - set(homes))
    if missing:
        needed, stored = (size(tokens, names, anatomy, model.config.num_labels, dtype) for names in (missing, sorted(homes)))
        _admit(needed, stored, limit_gb, root, tokens, missing)
        homes |= dict.fromkeys(missing, tuple(missing))
    arrays: dict[str, np.ndarray] = {}
    for together in sorted({homes[name] for name in requested}):
        make = partial(_write, model, anatomy, tokens, together, dtype, device)
        folder = artifact("outputs", {"of": of, "arrays": list(together)}, make)
        arrays |= {name: _open(folder, name) for name in requested if name in together}
    counts = {name: rows_of(name, tokens.lengths, anatomy.heads) for name in requested}
    offsets = {name: np.concatenate([[0], np.cumsum(count)]) for name, count in counts.items()}
    return TeacherOutputs(arrays, offsets)


def size(tokens: Tokens, names: Sequence[str], anatomy: Anatomy, labels: int, dtype: str) -> int:
    """Bytes that the named arrays take on disk."""
    rows = {name: int(rows_of(name, tokens.lengths, anatomy.heads).sum()) for name in names}
    return sum(rows[name] * int(np.prod(row_shape(name, anatomy, labels))) * _dtype(name, dtype).itemsize for name in names)


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over a model's weights and labels, wherever it was loaded from."""
    digest = hashlib.sha256(repr(sorted(model.config.id2label.items())).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tokens_hash(tokens: Tokens) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(tokens.offsets, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(tokens.flat, dtype=np.int32).tobytes())
    return digest.hexdigest()


def _homes(root: Path, of: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """For each stored array of this teacher on these texts: all arrays of the complete artifact that holds it."""
    homes: dict[str, tuple[str, ...]] = {}
    for path in sorted(path for path in root.glob("outputs-*") if not path.suffix):
        if (key := record_of(path).get("key", {})).get("of") == of:
            homes |= dict.fromkeys(key["arrays"], tuple(key["arrays"]))
    return homes


def _admit(needed: int, stored: int, limit_gb: float, root: Path, tokens: Tokens, names: Sequence[str]) -> None:
    """Log how much disk space the outputs will take, and refuse more than is allowed or free."""
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    what = f"the teacher's outputs ({', '.join(names)}) for {len(tokens):,} texts, {int(tokens.lengths.sum()):,} tokens"
    log.info("%s: %s on disk, %s already stored, limit %g GB", what, _gb(needed), _gb(stored), limit_gb)
    if needed + stored > limit_gb * 1e9:
        raise UserError(
            f"distill.cache_gb={limit_gb:g}: {what} need {_gb(needed + stored)}."
            "\nRaise it, or give fewer texts, a shorter trainer.max_length or fewer layers (distill.layers)."
        )
    if needed > free:
        raise UserError(f"{root}: {what} need {_gb(needed)}, but only {_gb(free)} are free.\nFree some space, or set runs_dir.")


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"


def _dtype(name: str, dtype: str) -> np.dtype:
    return np.dtype(np.float32 if name == "logits" else dtype)  # logits are few, and low temperatures amplify rounding


@torch.inference_mode()
def _write(
    model: PreTrainedModel, anatomy: Anatomy, tokens: Tokens, names: Sequence[str], dtype: str, device: torch.device, folder: Path
) -> None:
    """One pass over the texts, in order, so that files are written sequentially."""
    model.to(device).eval()
    lengths = tokens.lengths
    with ExitStack() as stack:
        stack.callback(model.cpu)
        files = {name: stack.enter_context((folder / _file(name)).open("wb")) for name in names}
        for start in ProgressMeter(range(0, len(tokens), CHUNK), desc="teacher", unit="chunk"):
            chunk = np.arange(start, min(start + CHUNK, len(tokens)))
            parts: dict[str, list[np.ndarray]] = {name: [np.empty(0)] * len(chunk) for name in names}
            for batch in sorted_batches(lengths[chunk], BATCH):
                inputs = {name: value.to(device) for name, value in pad(tokens, chunk[batch].tolist()).items()}
                for name, value in read(model, inputs, names).items():
                    ends = np.cumsum(rows_of(name, lengths[chunk[batch]], anatomy.heads))
                    values = _stored(name, value.float().cpu().numpy(), dtype)
                    for row, part in zip(batch, np.split(values, ends[:-1]), strict=True):
                        parts[name][row] = part
            for name in names:
                files[name].write(np.concatenate(parts[name]).tobytes())
    description = {}
    for name in names:
        shape = [-1, *row_shape(name, anatomy, model.config.num_labels)]
        description[name] = {"shape": shape, "dtype": str(_dtype(name, dtype))}
    write_json(folder / "arrays.json", description)


def _stored(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = values.astype(_dtype(name, dtype))
    if not np.isfinite(stored).all():
        raise UserError(f"distill.cache_dtype={dtype}: the teacher's {name} goes up to {np.abs(values).max():.3g}; use float32.")
    return stored


def _file(name: str) -> str:
    return f"{name.replace('/', '_')}.bin"


def _open(folder: Path, name: str) -> np.ndarray:
    description = read_json(folder / "arrays.json")[name]
    return np.memmap(folder / _file(name), dtype=description["dtype"], mode="r").reshape(description["shape"])

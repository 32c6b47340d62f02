"""Which texts a model was trained on: hashes of their keys next to its weights, to notice when it is scored on the same texts."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from findistill.data.text_key import text_key

log = logging.getLogger(__name__)

FILE = "training_texts.npy"  # sorted uint64, 8 bytes a text: 1 MB for 125,000 texts


def write(folder: Path, texts: Iterable[str], starts: Sequence[Path | str] = ()) -> None:
    """Write `FILE` to a model's folder, unless no texts are known.

    Args:
        texts: of training and validation.
        starts: models that it was initialised or distilled from; texts in the `FILE` of one that is a folder count as its own.
    """
    parts = [text_hashes(texts), *(hashes for start in starts if start and (hashes := _read(Path(start))) is not None)]
    if len(hashes := np.unique(np.concatenate(parts))):
        np.save(folder / FILE, hashes)


def known(model: Path | str, texts: Sequence[str]) -> np.ndarray:
    """(n,) bool: whether the model was trained on each text, or one that counts as the same; all False if it has no `FILE`.

    Args:
        model: a folder of a model, of an adapter or of a run, an ONNX file with `FILE` beside it, or a hub id.
    """
    path = Path(model)
    hashes = _read(path.parent if path.is_file() else path)
    return np.zeros(len(texts), bool) if hashes is None else np.isin(text_hashes(texts), hashes)


def text_hashes(texts: Iterable[str]) -> np.ndarray:
    """(n,) uint64: a hash of each text's key, which takes 8 bytes where the key takes a hundred."""
    digests = (hashlib.blake2b(text_key(text).encode(errors="surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "<u8")


def _read(folder: Path) -> np.ndarray | None:
    path = next((path for path in (folder / FILE, folder / "model" / FILE) if path.is_file()), None)
    if path is None:
        return None
    try:
        return np.load(path).astype(np.uint64)
    except (ValueError, OSError, EOFError) as error:
        log.warning("%s cannot be read (%s), so it is unknown which texts the model was trained on", path, error)
        return None

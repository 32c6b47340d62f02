"""`stage=export export.format=torch`: a trained model's folder to share: a classifier, an adapter, a GLiNER, ...

A copy without local paths: an adapter names its base by its hub id instead of a path, and no file names where its weights
were loaded from.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from findistill.core.files import read_json, write_json
from findistill.core.job import Job
from findistill.methods.provenance import card_of

log = logging.getLogger(__name__)

PLACES = ("_name_or_path", "name_or_path")  # paths of weights, in transformers' files
BASE = "base_model_name_or_path"  # in peft's files


def run(job: Job) -> None:
    reference = Path(job.step.whole.evaluate.model)
    source = next(folder for folder in (reference / "model", reference) if (folder / "README.md").is_file())
    target = job.folder / "model"
    # Subfolders are checkpoints or caches, hidden files are an editor's or the system's: neither belongs to the model.
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, target / path.name)
    base = card_of(str(target)).get("base_model")
    for path in target.glob("*.json"):
        if (content := _portable(path, base)) is not None:
            write_json(path, content)
    log.info("folder to share: %s", target)


def _portable(path: Path, base: str | None) -> dict[str, Any] | None:
    """The content of a JSON file without local paths; None if it has none."""
    try:
        content = read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(content, dict):
        return None
    changed = {name: value for name, value in content.items() if not (name in PLACES and Path(str(value)).is_absolute())}
    if BASE in content and base:
        changed[BASE] = base
    return changed if changed != content else None

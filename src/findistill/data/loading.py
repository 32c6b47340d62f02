"""From a data configuration to texts, and to the fingerprint that stands for them."""

import hashlib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from findistill.data.labels import LabelSet
from findistill.data.own import by_text
from findistill.data.rows import Source
from findistill.data.splits import assign
from findistill.data.texts import SPLITS, DataCard, TextData
from findistill.data.whereabouts import local_files
from findistill.settings.build import resolve
from findistill.settings.schema import Data

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1  # raise it whenever a reader, the cleaning or the splitting gives other rows than before


def load(config: Data) -> TextData:
    """Read the configured source, clean it and split it.

    Raises:
        UserError: the data set is not at hand, a file is faulty, or a setting cannot be met.
    """
    source = cast(Source, resolve(config._target_, "data._target_")(config))
    labels = LabelSet(tuple(source.labels or config.labels))
    frame, removed = assign(source.rows, config, labels)
    card = DataCard(
        config.name,
        source.licence,
        source.citation,
        source.origin,
        _counts(frame, labels),
        removed,
        tuple(source.notes),
    )
    return TextData(frame, labels, card)


def fingerprint(config: Data) -> str:
    """sha256 over all that determines `load(config)`: the settings, and the files' bytes or the hub's id and revision.

    Where a file lies does not matter, only its name and content.
    """
    settings = {key: value for key, value in _plain(config).items() if key != "path"}
    if "label_map" in settings:
        settings["label_map"] = by_text(settings["label_map"])
    paths = local_files(config)
    files = {path.name: _sha256(path) for path in paths} or {"hub": f"{config.hub_id}@{config.hub_revision}"}
    identity = json.dumps({"version": VERSION, "settings": settings, "files": files}, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def _plain(config: Data) -> dict[str, Any]:
    """The settings as JSON would write them, from a dataclass or from OmegaConf's view of one."""
    from omegaconf import DictConfig, OmegaConf

    if isinstance(config, DictConfig):
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _sha256(path: Any) -> str:
    if not path.is_file():
        return "missing"  # load() says so, better than a hash could
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _counts(frame: "pd.DataFrame", labels: LabelSet) -> dict[str, dict[str, int]]:
    counts = {}
    for split in SPLITS:
        rows = frame[frame["split"] == split]
        if len(rows):
            unlabelled = int(rows["label"].isna().sum())
            by_label = {name: int((rows["label"] == name).sum()) for name in labels.names}
            counts[split] = {"unlabelled": unlabelled} if unlabelled == len(rows) else by_label
    return counts

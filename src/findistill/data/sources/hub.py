"""Any data set of the hub, or a folder that `datasets` wrote (`data.path`). Splits named train, validation or test are kept."""

from pathlib import Path

from findistill.core.step import load
from findistill.data.config import FileData
from findistill.data.locations import files_under, from_hub, own_path
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.user_files import from_rows
from findistill.errors import UserError


def local_files(config: FileData) -> list[Path]:
    """Raises UserError if `config` names neither a data set nor a folder."""
    if config.path:
        return files_under(own_path(config))
    if not config.hub_id:
        raise UserError(f"data.hub_id is not set; data={config.name} needs data.hub_id=OWNER/NAME, or data.path=FOLDER")
    return []


def read(config: FileData) -> Source:
    """The names of a `ClassLabel` column are its labels, unless `data.label_map` translates its numbers."""
    local_files(config)
    if config.path:
        parts, origin = load("findistill.data.hugging_face:read_saved")(own_path(config)), str(config.path)
    else:
        parts, origin = from_hub(config), f"hub:{config.hub_id}"
    rows, ids, splits = [], [], []
    names: dict[str, list[str]] = {}
    for split, part in parts.items():
        names |= load("findistill.data.hugging_face:class_names")(part.features)
        table = load("findistill.data.hugging_face:to_rows")(part, origin)
        rows += table
        ids += [f"{split or 'row'}/{number}" for number in range(len(table))]
        splits += [SPLIT_NAMES.get(split.lower())] * len(table)
    if not rows:
        raise UserError(f"{origin}: no rows")
    return from_rows(config, rows, origin, Path(origin).name if config.path else str(config.hub_id), ids, splits, names)

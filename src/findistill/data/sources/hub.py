"""Any data set of the hub. Its splits are taken over where they are called train, validation or test."""

from pathlib import Path

from findistill.data.config import FileData
from findistill.data.locations import from_hub
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.user_files import by_text, from_rows
from findistill.errors import UserError


def local_files(config: FileData) -> list[Path]:
    if not config.hub_id:
        raise UserError(f"data.hub_id is not set; data={config.name} needs data.hub_id=OWNER/NAME")
    return []


def read(config: FileData) -> Source:
    """The names of a `ClassLabel` column are its labels, unless `data.label_map` translates its numbers."""
    local_files(config)
    rows, ids, splits = [], [], []
    for split, part in from_hub(config).items():
        names = getattr(part.features.get(config.label_column), "names", None)
        if names and by_text(config.label_map).keys() & set(map(str, range(len(names)))):
            names = None
        for number, row in enumerate(part.to_list()):
            if names:  # the hub's convention for rows without a label is -1
                label = row[config.label_column]
                row[config.label_column] = names[label] if label is not None and label >= 0 else None
            rows.append(row)
            ids.append(f"{split}/{number}")
            splits.append(SPLIT_NAMES.get(split))
    return from_rows(config, rows, f"hub:{config.hub_id}", str(config.hub_id), ids, splits)

"""Data sets as `datasets` keeps them on disk and on the hub. Heavy; loaded when one is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import httpx
import pyarrow as pa

from findistill.core.connection import hub_offline
from findistill.data.parquet_files import SAVED
from findistill.errors import UserError, first_line


def read_saved(path: Path) -> "datasets.DatasetDict":
    """A folder of `save_to_disk`, or one with data files as `datasets.load_dataset` reads it; a data set alone is `train`.

    Raises:
        UserError: it is none, or a part of it is damaged or missing.
    """
    try:
        saved = datasets.load_from_disk(str(path)) if _is_saved(path) else datasets.load_dataset(str(path))
    except Exception as error:  # of many kinds, and the files are not ours
        raise UserError(f"{path}: cannot be read as a data set of Hugging Face datasets ({first_line(error)[:160]})") from error
    return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict({"": saved})


def load_from_hub(hub_id: str, revision: str | None, options: Mapping[str, Any]) -> "datasets.DatasetDict":
    """Raises ValueError with the reason where the hub or the data set cannot be reached."""
    datasets.config.HF_HUB_OFFLINE = hub_offline()  # it keeps a copy
    try:
        return datasets.load_dataset(hub_id, revision=revision, **options)
    # The hub's errors are among these; a ValueError is an unknown configuration or a loading script.
    except (datasets.exceptions.DatasetsError, httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(first_line(error)[:160]) from error


def to_rows(part: "datasets.Dataset", path: object) -> list[dict[str, Any]]:
    """Raises UserError where the files of the data set are damaged."""
    try:
        part.data.validate(full=True)  # a damaged Arrow file would end the process
        return part.to_list()
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)[:160]})") from error


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names behind the numbers of each `ClassLabel` column, also of lists of them."""
    by_column = {}
    for column, feature in features.items():
        names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        if names:
            by_column[column] = list(names)
    return by_column


def names_in_schema(schema: pa.Schema) -> dict[str, list[str]]:
    """`class_names` of a Parquet file that `datasets` wrote."""
    return class_names(datasets.Features.from_arrow_schema(schema))


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in SAVED)

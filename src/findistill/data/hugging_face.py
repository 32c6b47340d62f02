"""Data sets in Hugging Face's format, on disk and on the hub. Slow to import, so loaded only when one is read."""

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
    """A folder of `save_to_disk`, or one of data files for `datasets.load_dataset`; a saved data set without splits is named ''.

    Raises:
        UserError: it is neither, or a part of it is damaged or missing.
    """
    try:
        saved = datasets.load_from_disk(str(path)) if _is_saved(path) else datasets.load_dataset(str(path))
    except Exception as error:  # many kinds, depending on the files
        raise UserError(f"{path}: cannot be read as a Hugging Face dataset ({first_line(error)[:160]})") from error
    return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict({"": saved})


def load_from_hub(hub_id: str, revision: str | None, options: Mapping[str, Any]) -> "datasets.DatasetDict":
    """Raises ValueError with the reason if the hub or the data set cannot be reached."""
    datasets.config.HF_HUB_OFFLINE = hub_offline()  # `datasets` keeps its own copy
    try:
        return datasets.load_dataset(hub_id, revision=revision, **options)
    # The hub's errors are among these; a ValueError is an unknown configuration or a loading script.
    except (datasets.exceptions.DatasetsError, httpx.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(first_line(error)[:160]) from error


def to_rows(part: "datasets.Dataset", path: object) -> list[dict[str, Any]]:
    """Raises UserError if the files of the data set are damaged."""
    try:
        part.data.validate(full=True)  # a damaged Arrow file would crash the process
        return part.to_list()
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)[:160]})") from error


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The class names of each `ClassLabel` column, also of those with lists of classes."""
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

"""Checks across the settings of a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.config.validate import missing, rule, sections
from findistill.data.config import Data, FileData
from findistill.data.locations import local_files
from findistill.errors import UserError

FORMATS = {"delimiter": ("csv", "conll"), "columns": ("csv", "excel"), "sheet": ("excel",), "encoding": ("csv", "jsonl", "conll")}


@rule()
def sources(config: Any) -> Iterator[str]:
    """Check every data set of the configuration: the job's own, and those in settings that `config.expand` made nodes of."""
    yield from missing(config, "data")
    for key, data, schema in sections(config):
        if issubclass(schema, FileData) and data.spans_column and data.label_column:
            yield (
                f"{key}.spans_column={data.spans_column} and {key}.label_column={data.label_column}: a data set has either "
                f"classes or mentions; remove one of the two"
            )
        if issubclass(schema, Data) and data.fold is not None and data.fold >= data.folds:
            yield f"{key}.fold={data.fold}: folds are numbered from 0 to {data.folds - 1} ({key}.folds={data.folds})"
        if issubclass(schema, Data) and data.reviewed is not None and not Path(data.reviewed).expanduser().is_file():
            yield f"{key}.reviewed={data.reviewed}: no such file; stage=review writes it to its run folder, as reviewed.parquet"
        if not issubclass(schema, FileData):
            continue
        if key == "data" and OmegaConf.select(config, "stage.name") == "predict":  # it also reads globs, and checks them itself
            yield from _unread(key, data)
            continue
        path = Path(data.path or ".").expanduser()
        if not (path.is_file() or path.is_dir()):
            yield f"{key}.path={data.path}: no such file"
            continue
        yield from _unread(key, data)
        try:
            local_files(cast(FileData, data))
        except UserError as error:  # neither a path nor a hub id
            yield str(error) if key == "data" else f"{key}: {error}"


@rule("annotate", "augment", "teacher", "student", "qlora", "fewshot", "evaluate")
def classes(config: Any) -> Iterator[str]:
    """Stages that assign one label to a text cannot use mentions."""
    if declares(config.data, "has_spans"):
        yield (
            f"stage={config.stage.name} assigns one label per text, but data={config.data.name} has mentions of entities "
            "instead; use stage=entities"
        )


def _unread(key: str, data: Any) -> Iterator[str]:
    """A message for each setting that only shipped readers of other formats use."""
    module, _, reader = data._target_.removesuffix(".read").rpartition(".")
    for setting, readers in FORMATS.items() if module == "findistill.data.sources" else ():
        value = data[setting]
        if value is not None and value != "utf-8" and reader not in readers:
            yield f"{key}.{setting}={value}: data={data.name} does not use it; it is for data={' and data='.join(readers)}"


def human_labels(config: Any, purpose: str, remedy: str = "") -> Iterator[str]:
    """A message if the data set has no labels for `purpose`, followed by `remedy`."""
    if not declares(config.data, "has_labels"):
        column = " without data.label_column=COLUMN" if "label_column" in config.data else ""
        yield f"{purpose} needs human labels; data={config.data.name} has none{column}{remedy}"

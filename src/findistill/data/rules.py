"""What the settings of a data set must have in common."""

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
    """Every data set of the configuration: the job's own, and those named in settings once `config.expand` made nodes of them."""
    yield from missing(config, "data")
    for key, data, schema in sections(config):
        if issubclass(schema, FileData) and data.spans_column and data.label_column:
            yield (
                f"{key}.spans_column={data.spans_column} and {key}.label_column={data.label_column}: a data set has classes or "
                f"mentions; leave one of them out"
            )
        if issubclass(schema, Data) and data.fold is not None and data.fold >= data.folds:
            yield f"{key}.fold={data.fold}: the folds are numbered from 0 to {data.folds - 1}, {key}.folds={data.folds}"
        if issubclass(schema, Data) and data.reviewed is not None and not Path(data.reviewed).expanduser().is_file():
            yield f"{key}.reviewed={data.reviewed}: no such file; stage=review leaves it in its run folder, as reviewed.parquet"
        if not issubclass(schema, FileData):
            continue
        if key == "data" and OmegaConf.select(config, "stage.name") == "predict":  # which reads globs, too, and has rules for it
            yield from _unread(key, data)
            continue
        path = Path(data.path or ".").expanduser()
        if not (path.is_file() or path.is_dir()):
            yield f"{key}.path={data.path}: no such file"
            continue
        yield from _unread(key, data)
        try:
            local_files(cast(FileData, data))
        except UserError as error:  # a path or a hub id is needed
            yield str(error) if key == "data" else f"{key}: {error}"


@rule("annotate", "augment", "teacher", "student", "qlora", "fewshot", "evaluate")
def classes(config: Any) -> Iterator[str]:
    """Stages that give a text one label have nothing to do with mentions."""
    if declares(config.data, "has_spans"):
        yield (
            f"stage={config.stage.name} gives a text one label, and data={config.data.name} has mentions of entities instead; "
            "stage=entities marks them"
        )


def _unread(key: str, data: Any) -> Iterator[str]:
    """A message for each setting that the shipped reader of another format has."""
    module, _, reader = data._target_.removesuffix(".read").rpartition(".")
    for setting, readers in FORMATS.items() if module == "findistill.data.sources" else ():
        value = data[setting]
        if value is not None and value != "utf-8" and reader not in readers:
            yield f"{key}.{setting}={value}: data={data.name} does not read it; it is for data={' and data='.join(readers)}"


def human_labels(config: Any, purpose: str, remedy: str = "") -> Iterator[str]:
    """A message where the data set has no labels for `purpose`; `remedy` stands behind it."""
    if not declares(config.data, "has_labels"):
        column = " without data.label_column=COLUMN" if "label_column" in config.data else ""
        yield f"{purpose} needs human labels; data={config.data.name} has none{column}{remedy}"

"""Where data sets are: in `$FINDISTILL_DATA`, in the user's own file, or on the hub."""

import os
import re
import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from findistill.config.instantiate import resolve
from findistill.core.step import load
from findistill.data.config import Data, FileData
from findistill.errors import UserError

if TYPE_CHECKING:
    import datasets

# File endings by the reader of the data source: formats that can be read row by row.
FORMATS = {
    "csv": (".csv", ".tsv", ".txt"), "jsonl": (".jsonl", ".json", ".ndjson"), "parquet": (".parquet", ".pq"),
}  # fmt: skip


def local_files(config: Data) -> list[Path]:
    """The local files that a reader would read, in reading order; empty if there are none and the hub is used.

    The reader's module lists them in a function `local_files(config)`. A reader without one reads `data.path`.

    Raises:
        UserError: `data.path` is not set, or a named file is not among those of the folder.
    """
    reader = resolve(config._target_, "data._target_")
    function = getattr(sys.modules[reader.__module__], "local_files", None)
    if function:
        return list(function(config))
    return files_under(own_path(cast(FileData, config))) if hasattr(config, "path") else []


def own_path(config: FileData) -> Path:
    """`data.path`. Raises UserError if it is not set."""
    if not config.path:
        raise UserError(f"data.path is not set; data={config.name} needs data.path=FILE")
    return Path(config.path).expanduser()


def files_under(path: Path) -> list[Path]:
    """The file itself, or all files of a folder in a fixed order, except hidden ones, which readers ignore."""
    if not path.is_dir():
        return [path]
    files = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def format_of(config: Any) -> str:
    """The format of the user's own files, a key of `FORMATS`; '' for other data sets."""
    package, _, name = str(config._target_).removesuffix(".read").rpartition(".")
    return name if package == "findistill.data.sources" and name in FORMATS else ""


def input_files(config: Any) -> list[Path]:
    """The files of `data.path` to label: the file, those of the format in a folder, or those that match a glob, in order.

    Raises:
        UserError: there is none.
    """
    path = own_path(config)
    if path.is_file():
        return [path]
    endings = FORMATS[format_of(config)]
    if path.is_dir():
        unpacked = {file: re.sub(r"\.(gz|bz2|xz)$", "", file.name.lower()) for file in files_under(path)}
        files = [file for file, name in unpacked.items() if name.endswith(endings)]
        if not files:
            raise UserError(f"data.path={path}: no file in the folder ends in {', '.join(endings)}; check data={config.name}")
        return files
    files = sorted(Path(name) for name in glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
    if not files:
        what = "no file matches it" if has_magic(str(path)) else "no such file"
        raise UserError(f"data.path={path}: {what}; check data.path")
    return files


def files_in(folder: str, names: Sequence[str]) -> list[Path]:
    """These files of a folder in `$FINDISTILL_DATA`, or [] if none exists. Raises UserError if only some exist."""
    root = _root()
    paths = [root / folder / name for name in names] if root else []
    if any(path.exists() for path in paths):
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path} is missing although related files exist; complete the folder or remove it")
        return paths
    return []


def csv_files(stems: Sequence[str], *folders: str, prefix: str = "") -> list[Path]:
    """The CSV files with these stems, which the user chose, from any of the folders.

    Raises:
        UserError: `stems` is empty, or the folders have CSV files but lack one of these.
    """
    if not stems:
        raise UserError("data.files=[]: name at least one file")
    root = _root()
    files = {path.stem: path for folder in folders for path in sorted((root / folder).glob(f"{prefix}*.csv"))} if root else {}
    for stem in stems if files else ():
        if stem not in files:
            raise UserError(f"data.files: no file {stem!r} in {root}; available: {', '.join(files)}")
    return [files[stem] for stem in stems] if files else []


def _root() -> Path | None:
    root = os.environ.get("FINDISTILL_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise UserError(f"FINDISTILL_DATA={root}: no such folder; correct the variable or unset it")
    return Path(root)


def unavailable(config: Data, folder: str = "", why: str = "not found in FINDISTILL_DATA") -> NoReturn:
    """Raise the UserError that says how to obtain a data set, which belongs in `folder` of `$FINDISTILL_DATA`."""
    ways = [f"set FINDISTILL_DATA to a folder that holds {folder}/" if folder else "check data.hub_id"]
    if config.hub_id:
        ways.append("go online to load it from the hub")
    remedy = f"Either {', or '.join(ways)}." if len(ways) > 1 else f"To use it, {ways[0]}."
    raise UserError(f"data={config.name} is not available: {why}.\n{remedy}")


def from_hub(config: Data, folder: str = "", **options: Any) -> "datasets.DatasetDict":
    """All splits of `data.hub_id`. Raises UserError if the hub or the data set cannot be reached."""
    if not config.hub_id:
        unavailable(config, folder)
    try:
        return load("findistill.data.hugging_face:load_from_hub")(config.hub_id, config.hub_revision, options)
    except ValueError as error:
        unavailable(config, folder, f"hub {config.hub_id}: {str(error)[:120]}")

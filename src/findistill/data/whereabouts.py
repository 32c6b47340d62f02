"""Where data sets are: in `$FINDISTILL_DATA`, in the user's own file, or on the hub."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from findistill.errors import UserError
from findistill.settings.schema import Data, FileData

if TYPE_CHECKING:
    import datasets


def own_path(config: FileData) -> Path:
    if not config.path:
        raise UserError(f"data={config.name} needs data.path=FILE")
    return Path(config.path)


def local_files(config: Data) -> list[Path]:
    """The files a reader would read on this machine, in reading order; empty where they are not here (the hub's turn).

    Raises:
        UserError: `data.path` is missing, or a named file is not among those of the folder.
    """
    reader = config._target_.rpartition(".")[2]
    if reader in ("csv", "jsonl", "parquet"):
        return [own_path(config)]  # type: ignore[arg-type]
    if reader == "demo":
        folder = Path(__file__).parent / "demo"
        return [folder / "corpus.jsonl"] + ([folder / "generator.py"] if config.rows is not None else [])  # type: ignore[attr-defined]
    if reader == "phrasebank":
        return _present(
            "financial_phrasebank",
            [f"Sentences_{level}.txt" for level in ("50Agree", "66Agree", "75Agree", "AllAgree")],
        )
    if reader == "tfns":
        return _present("twitter_financial_news", ["sent_train.csv", "sent_valid.csv"])
    if reader == "fiqa":
        kind = "headline" if config.part == "news" else "post"  # type: ignore[attr-defined]
        return _present("fiqa2018", [f"task1_{kind}_ABSA_{split}.json" for split in ("train", "test")])
    if reader == "stockemotions":
        return _present("stockemotions", [f"{split}_stockemo.csv" for split in ("train", "val", "test")])
    if reader == "reddit":
        return _chosen(config.files, "reddit_finance", prefix="posts_")  # type: ignore[attr-defined]
    if reader == "headlines":
        return _chosen(config.files, "ticker_headlines", "media_headlines")  # type: ignore[attr-defined]
    return []


def _root() -> Path | None:
    root = os.environ.get("FINDISTILL_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise UserError(f"FINDISTILL_DATA={root}: no such folder; correct the variable or unset it")
    return Path(root)


def _present(folder: str, names: Sequence[str]) -> list[Path]:
    root = _root()
    paths = [root / folder / name for name in names] if root else []
    if any(path.exists() for path in paths):
        for path in paths:
            if not path.is_file():
                raise UserError(f"{path} is missing beside its sister files; complete the folder or remove it")
        return paths
    return []


def _chosen(stems: Sequence[str], *folders: str, prefix: str = "") -> list[Path]:
    """The CSV files of these stems, wherever in the folders they are; their names are the user's choice."""
    if not stems:
        raise UserError("data.files=[]: name at least one file")
    root = _root()
    known = {path.stem: path for folder in folders for path in sorted((root / folder).glob(f"{prefix}*.csv"))} if root else {}
    for stem in stems if known else ():
        if stem not in known:
            raise UserError(f"data.files: no file {stem!r} in {root}; there are {', '.join(known)}")
    return [known[stem] for stem in stems] if known else []


def unavailable(config: Data) -> NoReturn:
    raise UserError(_where_to_find(config, "no folder with it in FINDISTILL_DATA"))


def _where_to_find(config: Data, why: str) -> str:
    folders = {
        "phrasebank": "financial_phrasebank",
        "tfns": "twitter_financial_news",
        "fiqa": "fiqa2018",
        "stockemotions": "stockemotions",
        "reddit": "reddit_finance",
        "headlines": "ticker_headlines and media_headlines",
    }
    folder = folders.get(config._target_.rpartition(".")[2])
    ways = [f"set FINDISTILL_DATA to a folder that holds {folder}/" if folder else "check data.hub_id"]
    if config.hub_id:
        ways.append("go online to load it from the hub")
    return (
        f"data={config.name} is not at hand: {why}.\nEither {', or '.join(ways)}."
        if len(ways) > 1
        else (f"data={config.name} is not at hand: {why}.\nTo use it, {ways[0]}.")
    )


def from_hub(config: Data, **options: Any) -> "datasets.DatasetDict":
    """All splits of `data.hub_id`. Raises UserError where the hub or the data set cannot be reached."""
    import datasets
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if not config.hub_id:
        unavailable(config)
    try:
        return datasets.load_dataset(config.hub_id, revision=config.hub_revision, **options)
    except (
        datasets.exceptions.DatasetsError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        httpx.HTTPError,
        OSError,  # ConnectionError and FileNotFoundError among them
        ValueError,  # an unknown configuration, or a loading script
        RuntimeError,
    ) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(_where_to_find(config, f"hub {config.hub_id}: {why[:120]}")) from error

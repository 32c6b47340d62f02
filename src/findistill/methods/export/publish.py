"""`export.push_to_hub=OWNER/NAME`: preview the upload and print its command; upload with `export.dry_run=false`.

It runs after the job is done, so the files exist, and the preview is cheap.
"""

import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import RepoCard, constants
from yaml import YAMLError

from findistill.config.fields import without_secrets
from findistill.errors import UserError, first_line
from findistill.methods.export.refusals import faults
from findistill.methods.export.steps import FOLDERS, what
from findistill.report.model_card import HERE

log = logging.getLogger(__name__)

LISTED = 50  # maximum number of files to list


def publish(config: Any, folder: Path, overrides: Sequence[str]) -> None:
    """Preview or upload the files that a completed export wrote to its run folder.

    Raises:
        UserError: a file must not be uploaded, or the hub refuses; in one or two lines, if possible before anything is sent.
    """
    export, exported = config.export, what(config)
    target = folder / FOLDERS[exported]
    files = {path.relative_to(target).as_posix(): path for path in sorted(target.rglob("*")) if path.is_file()}
    card = read_card(target / "README.md")
    texts_allowed = None if exported != "annotations" else export.texts is not False and has_texts(target)
    if refused := list(faults(target, [*files.values()], texts_allowed=texts_allowed)):
        more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
        raise UserError(
            f"export.push_to_hub={export.push_to_hub}: nothing was uploaded: {'; '.join(refused[:3])}{more}.\nCheck {target}"
        )
    kind = "dataset" if exported == "annotations" else "model"
    content: dict[str, Path | bytes] = {**files, "README.md": as_published(target / "README.md", export.push_to_hub)}
    if export.dry_run:
        sys.stdout.write("\n".join([*preview(export, kind, files, card), *confirm(overrides)]) + "\n")
        return
    from findistill.methods.export.hub import upload  # importing its client takes a second, which a dry run can save

    log.info("uploaded %d files: %s", len(files), upload(export.push_to_hub, kind, content, private=export.private))


def read_card(path: Path) -> RepoCard:
    """Raises UserError for a card that is missing, or whose header cannot be read."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file, and nothing is published without a card; delete {path.parents[1]} and export again"
        )
    try:
        return RepoCard.load(path)
    except (ValueError, YAMLError) as error:
        raise UserError(f"{path}: its header cannot be read: {first_line(error)}") from error


def preview(export: Any, kind: str, files: dict[str, Path], card: RepoCard) -> Iterator[str]:
    """Lines that say what would be uploaded, where to, its visibility and its licence."""
    total = sum(path.stat().st_size for path in files.values())
    kinds = "" if kind == "model" else f"{kind}s/"
    yield (
        f"would upload {len(files)} files, {_size(total)}, to {constants.ENDPOINT}/{kinds}{export.push_to_hub}, "
        f"a {'private' if export.private else 'PUBLIC'} {kind}:"
    )
    width = max(map(len, files))
    for name, path in list(files.items())[:LISTED]:
        yield f"  {name:<{width}}  {_size(path.stat().st_size):>9}"
    if len(files) > LISTED:
        yield f"  and {len(files) - LISTED} more"
    licence = card.data.get("license") or "none"
    yield f"licence: {card.data.get('license_name') if licence == 'other' else licence}, as its card says"
    if licence in ("unknown", "other", "none"):
        yield "warning: this licence grants others no rights; see the card's section Licence before you make it public"
    if "-nc" in licence:
        yield "warning: no commercial use"
    if kind == "dataset":
        yield "the texts are included" if has_texts(next(iter(files.values())).parent) else "the texts are not included"


def confirm(overrides: Sequence[str]) -> list[str]:
    """The command that uploads: the one that was typed, with `export.dry_run=false`."""
    words = [word for word in overrides if word.lstrip("+").partition("=")[0] != "export.dry_run"]
    return [
        "nothing has been uploaded; to upload, run:",
        f"  {shlex.join(['findistill', *map(without_secrets, words), 'export.dry_run=false'])}",
    ]


def as_published(card: Path, repo: str) -> bytes:
    """The card with OWNER/NAME in its examples instead of a folder."""
    return card.read_text("utf-8").replace(HERE, repo).replace(", local_files_only=True", "").encode()


def has_texts(folder: Path) -> bool:
    """Whether exported annotations include their texts."""
    from pyarrow import parquet  # not needed for models

    return "text" in parquet.read_schema(folder / "annotations.parquet").names


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"

"""Locates annotations to export. Its imports are light, as planning uses it too."""

from pathlib import Path

from findistill.core import run_folder
from findistill.core.store import record_of
from findistill.errors import UserError


def annotations_at(reference: str) -> Path:
    """The artifact of annotations that `export.annotations` names: by its own folder, or by a run that used it.

    Raises:
        UserError: there is none, or it contains mentions of entities.
    """
    path = Path(reference)
    if not path.is_dir():
        raise UserError(f"export.annotations={reference}: no such folder; use runs/STUDY/latest-annotate, or another run")
    if not (path / "annotations.parquet").is_file():
        artifact = run_folder.artifact_of(path, "annotate")
        if artifact is None:
            raise UserError(
                f"export.annotations={reference}: no annotations there, and it is not a run that used any; "
                "use runs/STUDY/latest-annotate, or runs/.artifacts/annotate-KEY"
            )
        path = artifact
    if record_of(path).get("key", {}).get("step", "annotate") != "annotate":
        raise UserError(f"export.annotations={reference}: entity mentions cannot be exported, only labels of texts")
    return path

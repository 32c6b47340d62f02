"""Where annotations lie that are to be exported. Light: a plan looks, too."""

from pathlib import Path

from findistill.core import run_folder
from findistill.core.store import record_of
from findistill.errors import UserError


def annotations_at(reference: str) -> Path:
    """The artifact of annotations that `export.annotations` names: its own folder, or that of a run that used it.

    Raises:
        UserError: there are none, or they are mentions of entities.
    """
    path = Path(reference)
    if not path.is_dir():
        raise UserError(f"export.annotations={reference}: no such folder; give runs/STUDY/latest-annotate, or another run")
    if not (path / "annotations.parquet").is_file():
        artifact = run_folder.artifact_of(path, "annotate")
        if artifact is None:
            raise UserError(
                f"export.annotations={reference}: no annotations there, and it is no run that used some; "
                "give runs/STUDY/latest-annotate, or runs/.artifacts/annotate-KEY"
            )
        path = artifact
    if record_of(path).get("key", {}).get("step", "annotate") != "annotate":
        raise UserError(f"export.annotations={reference}: mentions of entities are not exported; labels of texts are")
    return path

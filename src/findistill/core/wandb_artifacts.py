"""A job's artifacts at W&B, from data to predictions: versions identified by the steps' keys."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

from findistill.config.fields import without_secrets
from findistill.core import run_folder
from findistill.core.files import read_json
from findistill.core.hashing import seal
from findistill.core.step import ModelFolder, Step, walk
from findistill.core.store import RECORD, Store, artifact_seconds, record_of

# W&B's artifact types by step. A step that is not listed has no version; its inputs take its place.
TYPES = {
    "data": "dataset", "augment": "dataset", "annotate": "annotations", "extract": "annotations", "pretrain": "model",
    "teacher": "model", "labelled_student": "model", "qlora": "model", "model": "model",
}  # fmt: skip
MODELS = ("model", "merged", "onnx")  # folders of a run folder
SHORT = 8  # characters of a key, as in the names of run folders
NAME = 128  # characters of an artifact's name, W&B's limit


@dataclass(frozen=True)
class Version:
    """A version of a W&B artifact.

    Attributes:
        type: dataset, annotations, model, predictions or report.
        name: the artifact's name; its versions are distinguished by `key`.
        key: the key of the step or of the report.
        metadata: settings, parents, hashes of the files; no text of the data.
        files: the files to upload: name -> path.
    """

    type: str
    name: str
    key: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


class Versions:
    """The versions of a job's graph.

    Args:
        store: the store of the artifacts.
        with_files: upload files: those of models and, with `texts`, those that contain texts.
    """

    def __init__(self, store: Store, *, with_files: bool, texts: bool) -> None:
        self.store, self.with_files, self.texts = store, with_files, texts

    def of(self, step: Step, role: str = "") -> Version | None:
        """The version of an artifact, in the store or outside; None if its step is not in `TYPES`."""
        if isinstance(step, ModelFolder):
            return self._outside(step, role)
        if (kind := TYPES.get(step.name)) is None:
            return None
        folder = self.store.folder(step)
        metadata = {
            "key": step.key, "step": step.name, "version": step.version, "settings": without_secrets(step.record["settings"]),
            "parents": {role: f"{parent.name}-{parent.key}" for role, parent in step.inputs.items()},
            "seconds": artifact_seconds(folder),
        }  # fmt: skip
        for name in ("card", "summary"):
            with suppress(OSError, ValueError):
                metadata[name] = read_json(folder / f"{name}.json")
        metadata.get("card", {}).pop("origin", None)  # a path on this machine
        names = [kind if step.name in ("data", "annotate") else step.name]
        names += [str(each.config.name) for each in walk(step) if each.name == "data"][:1]
        sealed = record_of(folder).get("files", {})
        return self._version(kind, "-".join(names), step.key, metadata, folder, [name for name in sealed if name != RECORD])

    def inputs(self, step: Step) -> list[Version]:
        """A step's inputs: the nearest ancestors that have a version, each once."""
        versions: dict[tuple[str, str], Version] = {}
        for role, parent in step.inputs.items():
            own = self.of(parent, role)
            for version in [own] if own is not None else self.inputs(parent):
                versions.setdefault((version.name, version.key), version)
        return list(versions.values())

    def new_steps(self, step: Step) -> Iterator[Step]:
        """The ancestors that were created for this job and have inputs themselves, parents first."""
        folders = {artifact.path.name for artifacts in self.store.used.values() for artifact in artifacts if artifact.made}
        for node in walk(step):
            if node is not step and node.name in TYPES and node.inputs and self.store.folder(node).name in folders:
                yield node

    def card(self, step: Step) -> Mapping[str, Any] | None:
        """The card of the job's data set, without the path that it was read from."""
        data = step.inputs.get("data")
        version = self.of(data) if data is not None else None
        return version.metadata.get("card") if version else None

    def outputs_of(self, folder: Path) -> list[Version]:
        """The outputs in a run folder: a model, predictions; none if the folder does not identify its job."""
        try:
            key, stage = str(run_folder.status(folder)["key"]), str(read_json(folder / "lineage.json")["step"])
        except (OSError, ValueError, KeyError):
            return []
        metadata: dict[str, Any] = {"key": key, "step": stage, "job": folder.name}
        with suppress(OSError, ValueError):
            metadata["metrics"] = read_json(folder / "metrics.json")
        names = run_folder.results(folder)
        of_type = {
            "model": [name for name in names if name.partition("/")[0] in MODELS],
            "predictions": [name for name in names if name.startswith("predictions")],
        }
        study = folder.parent.name
        return [
            self._version(kind, f"{study}-{stage}-{kind}", key, metadata, folder, own) for kind, own in of_type.items() if own
        ]

    def _outside(self, step: ModelFolder, role: str) -> Version:
        """A model or annotations that a setting names. For a run folder, it is the version that its job logged."""
        kind, path = "annotations" if role == "annotations" else "model", Path(str(step.reference))
        for folder in (path, *path.parents[:2]):
            if outputs := [version for version in self.outputs_of(folder.resolve()) if version.type == kind]:
                return outputs[0]
        return self._version(kind, f"{kind}-{path.name}", step.key, {"key": step.key, "files": step.record["files"]})

    def _version(
        self, kind: str, name: str, key: str, metadata: Mapping[str, Any], folder: Path | None = None, names: Iterable[str] = ()
    ) -> Version:
        own = [] if folder is None else [each for each in names if (folder / each).is_file()]
        hashes = {} if folder is None else {each: entry[:2] for each, entry in seal(folder, own).items()}
        sent = self.with_files and (self.texts or kind in ("model", "report"))
        files = {each: folder / each for each in own} if sent and folder is not None else {}
        return Version(kind, readable(name), key, {"files": hashes, **metadata}, files)


def readable(name: str) -> str:
    """A name that W&B accepts: ASCII letters, digits, `.`, `_`, `-`."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:NAME]


def publish(run: Any, version: Version, *, used: bool) -> None:
    """Record a version as an input of a run (`used`) or as its output.

    Both are written to the run's records and sent from there (offline: by `wandb sync`), so that neither waits for the server:
    `Run.use_artifact` does not work offline, and online both it and `Run.log_artifact` wait for a server that is gone.
    A version whose digest, which depends on the key, the server already has is not created again.
    """
    artifact = wandb.Artifact(version.name, version.type, metadata=dict(version.metadata))
    # Not a file but an identifier, with the key that `runs/.artifacts` and run folders use. `Artifact.add_reference` would warn
    # about the unknown scheme.
    address = f"findistill://{version.type}/{version.key}"
    artifact.manifest.add_entry(ArtifactManifestEntry(path="findistill.key", ref=address, digest=address))
    for name, path in version.files.items():
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
    artifact.finalize()
    # Using an older version must not make it the latest again; except for data sets, since no run logs those without parents.
    aliases = [version.key[:SHORT], *(["latest"] if not used or version.type == "dataset" else [])]
    run._interface.publish_artifact(run, artifact, aliases, is_user_created=used, use_after_commit=used)

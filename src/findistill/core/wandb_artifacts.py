"""What W&B gets of a job's artifacts: versions that steps' keys identify, from data to predictions."""

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

# What the artifacts of steps are to W&B. Of a step that is not here, a version has what it was made from among its inputs.
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
        name: of the artifact, whose versions are told apart by `key`.
        key: the step's, or the report's.
        metadata: settings, parents, hashes of the files; no text of the data.
        files: what is uploaded: name -> path.
    """

    type: str
    name: str
    key: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


class Versions:
    """The versions of a job's graph.

    Args:
        store: where the artifacts are.
        with_files: have files uploaded: those of models, and, with `texts`, those that texts are in.
    """

    def __init__(self, store: Store, *, with_files: bool, texts: bool) -> None:
        self.store, self.with_files, self.texts = store, with_files, texts

    def of(self, step: Step, role: str = "") -> Version | None:
        """The version of an artifact, of the store or from outside; None where W&B has no type for it."""
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
        metadata.get("card", {}).pop("origin", None)  # a place on this machine
        names = [kind if step.name in ("data", "annotate") else step.name]
        names += [str(each.config.name) for each in walk(step) if each.name == "data"][:1]
        sealed = record_of(folder).get("files", {})
        return self._version(kind, "-".join(names), step.key, metadata, folder, [name for name in sealed if name != RECORD])

    def inputs(self, step: Step) -> list[Version]:
        """What a step was made from: the nearest ancestors that have a version, each once."""
        versions: dict[tuple[str, str], Version] = {}
        for role, parent in step.inputs.items():
            own = self.of(parent, role)
            for version in [own] if own is not None else self.inputs(parent):
                versions.setdefault((version.name, version.key), version)
        return list(versions.values())

    def new_steps(self, step: Step) -> Iterator[Step]:
        """The ancestors that were made for this job and have inputs of their own, parents first."""
        folders = {artifact.path.name for artifacts in self.store.used.values() for artifact in artifacts if artifact.made}
        for node in walk(step):
            if node is not step and node.name in TYPES and node.inputs and self.store.folder(node).name in folders:
                yield node

    def card(self, step: Step) -> Mapping[str, Any] | None:
        """The data card of the job's own data set, without the place that it was read from."""
        data = step.inputs.get("data")
        version = self.of(data) if data is not None else None
        return version.metadata.get("card") if version else None

    def outputs_of(self, folder: Path) -> list[Version]:
        """What a job left in its run folder: a model, predictions; none where the folder does not say which job it was."""
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
        """A model or annotations that a setting names. A run folder's model is the version that its job left."""
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
    """A name that W&B takes: ASCII letters, digits, `.`, `_`, `-`."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:NAME]


def publish(run: Any, version: Version, *, used: bool) -> None:
    """Have a run use a version, or be the one that made it.

    Both are written to the run's records and sent from there, offline by `wandb sync`, so that neither waits for the server:
    `Run.use_artifact` refuses to work offline, and online it waits as long as `Run.log_artifact` does for a server that is gone.
    A version that the server has by its digest, which the key is a part of, is not made again.
    """
    artifact = wandb.Artifact(version.name, version.type, metadata=dict(version.metadata))
    # Not a file of this machine: what the version is, by the key that `runs/.artifacts` and run folders have it under.
    # `Artifact.add_reference` would warn that it knows no such address.
    address = f"findistill://{version.type}/{version.key}"
    artifact.manifest.add_entry(ArtifactManifestEntry(path="findistill.key", ref=address, digest=address))
    for name, path in version.files.items():
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
    artifact.finalize()
    # An older version that is used does not become the latest one again; of data, no run logs a version.
    aliases = [version.key[:SHORT], *(["latest"] if not used or version.type == "dataset" else [])]
    run._interface.publish_artifact(run, artifact, aliases, is_user_created=used, use_after_commit=used)

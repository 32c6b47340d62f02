"""Settings of reviews."""

from dataclasses import dataclass
from typing import ClassVar

from findistill.config.fields import setting

BACKENDS = ("file", "label_studio", "argilla")


@dataclass
class Review:
    servers: ClassVar[tuple[str, ...]] = BACKENDS[1:]

    backend: str = setting("file", choices=BACKENDS)
    size: int = setting(100, ge=1)  # maximum texts, those that the annotator is least certain of
    spans: bool | None = None  # review mentions of entities instead of labels; None: if the data has mentions
    suggestions: str | None = None  # a folder with `annotations.parquet`; None: the job's own annotator makes them
    files: list[str] = setting(["review.csv"], distinct=True)  # file: .csv or .jsonl, one for each reviewer
    url: str | None = setting(None, runtime_only=True)  # label_studio, argilla: the server's address
    project: str = "findistill-${study}"  # label_studio, argilla: the name of the project, or of the data set
    workspace: str | None = None  # argilla; None: the user's first one
    reviewers: int = setting(1, ge=1)  # label_studio, argilla: how many decide on each text
    adjudicator: str | None = None  # the reviewer whose decision counts if reviewers disagree
    timeout_s: float = setting(60.0, gt=0, runtime_only=True)

"""Rules of `stage=review`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from findistill.config.fields import PASSWORD
from findistill.config.validate import rule
from findistill.methods.annotate.rules import annotates
from findistill.methods.extract.rules import extraction
from findistill.methods.review.steps import of_spans


@rule("review")
def review(config: Any) -> Iterator[str]:
    settings = config.review
    if settings.suggestions is None:
        yield from (extraction if of_spans(config) else annotates)(config)
    elif not (Path(settings.suggestions) / "annotations.parquet").is_file():
        yield (
            f"review.suggestions={settings.suggestions}: no annotations.parquet there; give the folder of annotations, "
            "such as runs/.artifacts/annotate-KEY"
        )
    if settings.backend == "file":
        yield from _files(settings.files)
    elif not re.fullmatch(r"\w[\w .-]{2,49}", settings.project):
        yield (
            f"review.project={settings.project} is not a name of 3 to 50 letters, digits, ' ', '.', '_' or '-'; "
            "set review.project=NAME"
        )
    elif not settings.url:
        yield f"review.url is not set; review.backend={settings.backend} needs the server's address, such as review.url=http://127.0.0.1:8080"
    elif (
        PASSWORD.search(settings.url)
        or urlsplit(settings.url).scheme not in ("http", "https")
        or not urlsplit(settings.url).netloc
    ):
        yield "review.url must be an address that begins with http:// or https:// and contains no user or password"


def _files(files: Any) -> Iterator[str]:
    names = [Path(name) for name in files]
    for path in names:
        if path.is_dir():
            yield f"review.files: {path} is a folder; name a file in it"
        elif path.suffix not in (".csv", ".jsonl"):
            yield f"review.files: {path} is neither a .csv nor a .jsonl file"
    if not names or len({path.stem for path in names}) < len(names):
        yield "review.files: name a file for each reviewer, all with different names, such as 'review.files=[ann.csv,bob.csv]'"

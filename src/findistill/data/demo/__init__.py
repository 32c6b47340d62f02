"""The project's own corpus: hand-written headlines and posts about fictional companies, and a generator that grows it.

Every row is a dict: `id`, `kind` (headline | post), `text`, `label` (negative | neutral | positive: what the text means
for an investor in the company), `companies` ([start, end) character offsets of every company name or ticker in the
text), `date` (ISO) and `difficulty` (easy | hard). Public bodies such as central banks are not companies. Twelve easy or
typical rows of each label also have a `rationale`, one sentence that leads to the label: demonstrations for chain of
thought.

It is for trying things; no result is reported on it.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from findistill.data.demo.generator import generate

__all__ = ["generate", "read_corpus"]


def read_corpus() -> Iterator[dict[str, Any]]:
    """The hand-written rows in file order, which is shuffled: any first n are a fair sample of kinds and labels."""
    with files(__name__).joinpath("corpus.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)

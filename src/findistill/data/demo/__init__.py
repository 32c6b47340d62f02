"""The project's own corpus: headlines and posts about fictional companies, hand-written rows followed by generated ones.

Every row is a dict: `id`, `kind` (headline | post), `text`, `label` (negative | neutral | positive: what the text means
for an investor in the company), `companies` ([start, end) character offsets of every company name or ticker in the
text), `date` (ISO) and `difficulty` (easy | hard). Public bodies such as central banks are not companies. Twelve easy or
typical rows of each label also have a `rationale`, one sentence that leads to the label: demonstrations for chain of
thought. `benchmarks/demo_corpus.py` wrote the generated rows.

It is for trying things out; no results are reported on it.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("corpus.jsonl")
ROWS = 1_400
WRITTEN = 764  # the first rows


def read_corpus(rows: int | None = None) -> Iterator[dict[str, Any]]:
    """The first `rows` rows, by default all hand-written ones.

    These are shuffled in the file, so the first n are a fair sample of kinds and labels.
    """
    with CORPUS.open(encoding="utf-8") as lines:
        for line in islice(lines, WRITTEN if rows is None else rows):
            yield json.loads(line)

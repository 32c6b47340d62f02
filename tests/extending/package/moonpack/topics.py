"""Headlines with their topic, one a line: `topic <tab> headline`; a line without a topic is unlabelled."""

import pandas as pd

from findistill.data.config import FileData
from findistill.data.rows import Source
from findistill.errors import UserError


def topics(config: FileData) -> Source:
    """Read `data.path`. Cleaning and splitting are not the reader's business."""
    if not config.path:
        raise UserError("data=topics needs data.path=FILE")
    table = pd.read_csv(config.path, sep="\t", names=["topic", "headline"], keep_default_na=False, encoding=config.encoding)
    rows = [
        {"id": f"topics/{number}", "text": headline, "label": topic or None, "source": "topics"}
        for number, (topic, headline) in enumerate(table.itertuples(index=False))
    ]
    return Source(rows, origin=config.path, licence="the owner's", citation="headlines of our own")

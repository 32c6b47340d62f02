"""Settings of the report."""

from dataclasses import dataclass, field

from findistill.config.fields import setting


@dataclass
class Report:
    # on the jobs' test rows: the most frequent label, the nearest labelled texts, and whom students learnt from
    baselines: list[str] = field(default_factory=lambda: ["majority", "neighbours", "annotator", "teacher"])
    published: str | None = None  # key into the published numbers
    resamples: int = setting(2000, ge=1)

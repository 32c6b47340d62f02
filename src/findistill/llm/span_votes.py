"""Several samples of an annotator for one text, as votes on spans (self-consistency over mentions)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from findistill.data.spans import Span
from findistill.data.surface_forms import form_key
from findistill.llm.extraction import Extracted

MAJORITY = 0.5


@dataclass(frozen=True)
class SpanVotes:
    """For each span, how many of the readable samples of a text contain exactly that span.

    Attributes:
        counts: spans in order, with their votes.
        n_valid: readable samples, including those with an empty list of mentions.
        n_samples: all samples.
        normalized: for each span, the usual name given most often; None if no sample gives one.
        missing: forms that do not occur in the text, most frequent first.
    """

    counts: Mapping[Span, int]
    n_valid: int
    n_samples: int
    normalized: Mapping[Span, str | None] = field(default_factory=dict)
    missing: Sequence[str] = ()

    @classmethod
    def count(cls, text: str, samples: Sequence[Extracted | None]) -> "SpanVotes":
        """Count the votes of all samples; None stands for an unreadable one."""
        readable = [sample for sample in samples if sample is not None]
        counts = Counter(span for sample in readable for span in set(sample.spans))
        names: dict[Span, Counter[str]] = {span: Counter() for span in sorted(counts)}
        for sample in readable:
            usual = {form_key(form): name for form, name in sample.normalized.items()}
            for span in sample.spans:
                if name := usual.get(form_key(text[span.start : span.end])):
                    names[span][name] += 1
        missing = Counter(form for sample in readable for form in sample.missing)
        return cls(
            {span: counts[span] for span in names}, len(readable), len(samples),
            {span: max(each, key=each.__getitem__, default=None) for span, each in names.items()},
            [form for form, _ in missing.most_common()],
        )  # fmt: skip

    def agreed(self, share: float = MAJORITY) -> list[Span]:
        """Non-overlapping spans that more than this share of the readable samples contain.

        Of overlapping spans, the one with the most votes is kept, then the longest, then the first.
        """
        disjoint: list[Span] = []
        winners = [span for span, votes in self.counts.items() if votes > share * self.n_valid]
        for span in sorted(winners, key=lambda each: (-self.counts[each], each.start - each.end, each)):
            if not any(span.overlaps(other) for other in disjoint):
                disjoint.append(span)
        return sorted(disjoint)

    def cell(self, spans: Iterable[Span]) -> list[dict[str, Any]]:
        """Spans with their votes, as a table's cell."""
        return [{"start": each.start, "end": each.end, "label": each.label, "votes": self.counts[each]} for each in spans]

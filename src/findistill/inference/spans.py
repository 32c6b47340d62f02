"""Predict the spans of any number of texts; other modules open and run the models."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from findistill.data.spans import Span

AT_ONCE = 4096  # texts that are read, sorted by length and predicted together; bounds the memory of a stream


class SpanModel(Protocol):
    """Any model that marks entities in texts."""

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text, in order; those of one text do not overlap."""


def stream(model: SpanModel, texts: Iterable[str], at_once: int = AT_ONCE) -> Iterator[list[Span]]:
    """The spans of each text, in the texts' order, as they are read."""
    source = iter(texts)
    while part := list(islice(source, at_once)):
        yield from model.spans(part)

"""An engine without a language model: labels by their keywords, with a mistake now and then."""

import random
from collections.abc import Generator, Iterable
from typing import Any

from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.prompts import Template

KEYWORDS = {"earnings": ("profit", "sales"), "deals": ("buys", "merger"), "rates": ("bank", "inflation")}


class KeywordEngine(Engine):
    """`temperature` is the share of answers that are drawn at random."""

    def __init__(self, name: str, model: str, price: Any) -> None:
        self.name = name

    def exact(self, template: Template) -> bool:
        return False  # one response a sample, no label probabilities

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        for request in requests:
            # One row of `samples.jsonl` each; the draw depends on nothing but the request, the sample and the seed.
            yield [self._respond(request, number, template, sampling) for number in request.samples]

    def _respond(self, request: Request, number: int, template: Template, sampling: Sampling) -> Response:
        draw = random.Random(f"{sampling.seed}/{request.id}/{number}")
        words = request.text.lower().split()
        counts = {label: sum(words.count(word) for word in KEYWORDS.get(label, ())) for label in template.words}
        label = max(counts, key=counts.__getitem__)
        if draw.random() < sampling.temperature:
            label = draw.choice(list(template.words))
        raw = template.words[label]
        return Response(request.id, number, raw=raw, label=template.parse(raw), tokens_in=len(words), tokens_out=1)

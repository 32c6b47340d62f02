"""An engine for a loopback server, requests, and the responses to all of them."""

from collections.abc import Iterator

from findistill.llm.endpoint import EndpointEngine
from findistill.llm.engine import Request, Response, Sampling
from findistill.llm.prompts import Demonstration, Template
from tests.llm.servers import LoopbackServer

TEMPLATE = Template("Classify.", {"negative": "negative", "neutral": "neutral", "positive": "positive"})
STEPS = Template("Classify.", TEMPLATE.words, steps=("Opinion:",))


def engine(server: LoopbackServer, **settings: object) -> EndpointEngine:
    options = {"base_url": server.url, "api_key_env": "TEST_KEY", "timeout_s": 5.0, **settings}
    return EndpointEngine(model="m", **options)  # type: ignore[arg-type]


def requests(tasks: int, samples: int) -> Iterator[Request]:
    demonstrations = (Demonstration("Sales fell.", "negative"),)
    return (Request(f"t{i}", f"text {i}", demonstrations, tuple(range(samples))) for i in range(tasks))


def ask(
    server: LoopbackServer, tasks: int = 5, samples: int = 4, concurrency: int = 3, temperature: float = 0.5,
    template: Template = TEMPLATE, retries: int = 0, stop_at: int | None = None, **settings: object,
) -> list[Response]:  # fmt: skip
    sampling = Sampling(temperature, 0, concurrency, retries, stop_at)
    responses = [a for batch in engine(server, **settings).responses(requests(tasks, samples), template, sampling) for a in batch]
    return sorted(responses, key=lambda answer: (int(answer.id[1:]), answer.sample))

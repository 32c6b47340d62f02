"""`stage=serve`: responses, refusals, concurrent requests, slow clients, and shutdown."""

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from findistill.errors import UserError
from findistill.methods.serve import server as serving
from findistill.methods.serve.app import make_app
from findistill.methods.serve.batching import Batcher, QueueFullError
from findistill.methods.serve.config import Serve
from findistill.methods.serve.server import _Server
from findistill.methods.serve.stage import listen
from tests.faults.conftest import tiny  # noqa: F401
from tests.fixtures.preloaded import Preloaded
from tests.methods.predict.conftest import composed, model  # noqa: F401

LIMITS = Serve(
    model="m", batch_size=8, queue=16, texts=16, characters=50, body_kb=4, timeout_s=0.4, wait_ms=1.0, connections=20
)  # fmt: skip


@dataclass
class Service:
    """Serves a model that returns the length of each text once `gate` is set."""

    port: int
    gate: threading.Event
    batches: list[list[str]]

    def send(self, body: bytes | str | dict[str, Any], path: str = "/predict", method: str = "POST") -> tuple[int, Any, Any]:
        """Send a request; return the status, JSON and headers of the response."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        content = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, content if method == "POST" else None)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text), response.headers


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    batches: list[list[str]] = []
    gate = threading.Event()
    gate.set()

    def answer(texts: Sequence[str]) -> list[dict[str, Any]]:
        batches.append(list(texts))
        assert gate.wait(20)
        if "break" in texts:
            raise UserError("the model gives no numbers")
        return [{"label": "long" if len(text) > 5 else "short", "confidence": 1.0} for text in texts]

    servers: list[_Server] = []
    begin = _Server.__init__

    def note(self: _Server, config: Any) -> None:
        begin(self, config)
        servers.append(self)

    monkeypatch.setattr(_Server, "__init__", note)
    listening = listen("127.0.0.1", 0)
    batcher = Batcher(answer, LIMITS.batch_size, LIMITS.wait_ms / 1000, LIMITS.queue)
    app = make_app(batcher, LIMITS, "m", ("long", "short"))
    thread = threading.Thread(target=serving.serve, args=(app, listening, LIMITS), daemon=True)
    thread.start()
    limit = time.monotonic() + 20
    while not (servers and servers[0].started):
        assert time.monotonic() < limit
        time.sleep(0.01)
    yield Service(listening.getsockname()[1], gate, batches)
    gate.set()
    servers[0].should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_one_text_or_several(service: Service) -> None:
    assert service.send({"text": "profits"})[:2] == (200, {"label": "long", "confidence": 1.0})
    status, content, _ = service.send({"texts": ["a", "profits", "b"]})
    assert status == 200 and [row["label"] for row in content["predictions"]] == ["short", "long", "short"]
    status, content, _ = service.send("", "/health", "GET")
    assert status == 200 and content["status"] == "ok" and content["labels"] == ["long", "short"] and content["texts"] == 4


REFUSED: dict[str, tuple[bytes | str | dict[str, Any], int, str]] = {
    "no JSON": ("text", 400, "not JSON"),
    "nothing": ("", 400, "not JSON"),
    "not UTF-8": (b'{"text": "\xe4"}', 400, "not JSON"),
    "brackets without an end": ("[" * 3000, 400, "not JSON"),
    "a list": ("[1]", 422, "send {"),
    "another key": ({"texts": ["a"], "n": 1}, 422, "send {"),
    "both": ({"text": "a", "texts": ["a"]}, 422, "send {"),
    "a number": ({"text": 5}, 422, "text is not a string"),
    "blank": ({"texts": ["a", " "]}, 422, "text 2 is blank"),
    "no texts": ({"texts": []}, 422, "at least one"),
    "texts is a text": ({"texts": "abc"}, 422, "must be a list"),
    "half a character": ('{"text": "\\ud83d"}', 422, "unpaired surrogate"),
    "a long text": ({"texts": ["a", "b" * 51]}, 413, "text 2 has 51 characters; limit 50 (serve.characters)"),
    "many texts": ({"texts": ["a"] * 17}, 413, "17 texts exceed the limit of 16 (serve.texts)"),
    "a large body": ("x" * 5000, 413, "larger than 4 KB (serve.body_kb)"),
    "a model that fails": ({"text": "break"}, 500, "the model gives no numbers"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, service: Service) -> None:
    body, status, words = REFUSED[what]
    code, content, _ = service.send(body)
    assert code == status and words in content["error"]
    assert service.send({"text": "a"})[0] == 200
    assert service.send("", "/nowhere", "GET")[0] == 404 and service.send("", "/predict", "GET")[0] == 405


def test_a_large_body_of_unknown_length_is_not_read_to_its_end(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            client.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /predict HTT", b""),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\n", b""),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{", b"HTTP/1.1 408"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/1.1 400"),
    ],
    ids=["nothing", "half a line", "half a head", "half a body", "TLS"],
)
def test_a_slow_client_is_not_waited_for(sent: bytes, answer: bytes, service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(sent)
        started = time.monotonic()
        received = client.recv(1000)
        while received and (part := client.recv(1000)):
            received += part
        assert received.startswith(answer) and bool(received) == bool(answer) and time.monotonic() - started < 5
    assert service.send({"text": "a"})[0] == 200


def test_a_head_that_trickles_in_is_cut_off_too(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        with pytest.raises(OSError, match=r"reset|pipe"):  # the second request of a connection
            while time.monotonic() - started < 10:
                client.sendall(b"G" if time.monotonic() - started < 0.05 else b"E")
                time.sleep(0.1)
        assert time.monotonic() - started < 5


def test_requests_that_arrive_together_are_answered_together(service: Service) -> None:
    service.gate.clear()
    results: list[tuple[int, Any, Any]] = []
    threads = [threading.Thread(target=lambda n=n: results.append(service.send({"text": f"t{n}"}))) for n in range(9)]
    threads[0].start()
    limit = time.monotonic() + 10
    while not service.batches and time.monotonic() < limit:
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
    while service.send("", "/health", "GET")[1]["waiting"] < 8 and time.monotonic() < limit:
        time.sleep(0.01)
    assert service.send({"texts": ["a"] * 9})[:2] == (503, {"error": "the queue is full (16 texts, serve.queue); try again"})
    assert service.send({"texts": ["a"] * 9})[2]["Retry-After"] == "1"
    service.gate.set()
    for thread in threads:
        thread.join(10)
    assert [status for status, *_ in results] == [200] * 9
    assert [len(batch) for batch in service.batches] == [1, 8] and sorted(service.batches[1]) == [f"t{n}" for n in range(1, 9)]


def test_texts_of_a_client_that_has_gone_are_not_answered() -> None:
    batch_texts: list[str] = []

    async def scenario() -> None:
        batcher = Batcher(lambda texts: batch_texts.extend(texts) or [{} for _ in texts], 4, 0.0, 4)
        gone = asyncio.create_task(batcher.submit(["a", "b"]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await batcher.submit(["c", "d", "e"])
        gone.cancel()
        await asyncio.sleep(0)
        work = asyncio.create_task(batcher.run())
        assert await batcher.submit(["c"]) == [{}]
        work.cancel()

    asyncio.run(scenario())
    assert batch_texts == ["c"]


def test_an_address_in_use(service: Service) -> None:
    with pytest.raises(UserError, match=f"serve.host=127.0.0.1 serve.port={service.port}: cannot listen there"):
        listen("127.0.0.1", service.port)


def test_the_command_serves_until_it_is_told_to_stop(
    preloaded: Preloaded,
    model: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    command = [
        "findistill", "stage=serve", f"serve.model={model}", "serve.weights=torch", "serve.port=0", "serve.threads=1",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    running = preloaded.start(command, tmp_path, os.environ)
    limit = time.monotonic() + 60
    place = None
    while not (place := re.search(r"http://127\.0\.0\.1:(\d+)/predict", running.printed())):
        assert not running.ended() and time.monotonic() < limit, running.printed()
        time.sleep(0.05)
    service = Service(int(place[1]), threading.Event(), [])
    status, content, _ = service.send({"text": "Profit rose"})
    assert status == 200 and set(content) == {"label", "confidence", "p_positive", "p_negative", "p_neutral"}
    os.kill(running.pid, signal.SIGTERM)
    result = running.wait(30)
    assert result.returncode == 0 and "stopped: 1 texts in 1 batches" in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "runs").glob("*/*")) if (tmp_path / "runs").exists() else True


def test_mistakes() -> None:
    from findistill.methods.stage import stage_of

    for overrides, words in (
        ((), "stage=serve needs serve.model"),
        (("serve.model=./nowhere",), "no such folder"),
        (("serve.model=m", "serve.queue=3"), "serve.queue=3 is below serve.texts=256, the largest request"),
        (("serve.model=m", "serve.port=70000"), "serve.port=70000 is not a port"),
    ):
        with pytest.raises(UserError, match=words):
            stage_of(composed("stage=serve", *overrides))

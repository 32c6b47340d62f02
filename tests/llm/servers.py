"""Loopback servers that speak OpenAI's chat protocol, well or badly, for tests."""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from aiohttp import web

KEY = "sk-very-secret"
JSON = {"Content-Type": "application/json"}


@dataclass
class Reply:
    """A server's reply. With `cut` the server closes the connection: after `cut` characters of the body, or at once if 0.

    With `pieces` the body is streamed in these chunks, with `pause_s` before each, until the client disconnects.
    """

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    after_s: float = 0.0
    cut: int | None = None
    pieces: Iterable[bytes] | None = None
    pause_s: float = 0.0


def chat(contents: list[str], usage: object = "honest", **choice: object) -> Reply:
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": content}, **choice}
        for i, content in enumerate(contents)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9} if usage == "honest" else usage
    completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
    return Reply(body=json.dumps(completion))


def refusal(status: int, message: str = "no", **headers: str) -> Reply:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": message, "type": "error"}}), JSON | fields)


def is_probe(body: dict) -> bool:
    return len(body["messages"]) == 1  # a probe has no instruction


def sampling(body: dict) -> Reply:
    """Draws each choice independently; supports neither a schema nor log-probabilities."""
    words = ["positive"] * 3 + ["neutral", "negative"]
    return chat([random.choice(words) + " " * random.randrange(999) for _ in range(body.get("n", 1))])


def after_probes(behave: Callable[[dict], Reply]) -> Callable[[dict], Reply]:
    """Samples correctly while it is probed, then replies by `behave`."""
    return lambda body: sampling(body) if is_probe(body) else behave(body)


def seeded(body: dict) -> Reply:
    """One choice, which depends only on the text and the seed."""
    text = body["messages"][-1]["content"]
    drawn = int.from_bytes(blake2b(f"{text}{body['seed']}".encode(), digest_size=4).digest(), "big")
    return chat([("positive", "neutral", "negative")[drawn % 3] + f" ({drawn})" * is_probe(body)])


def greedy(body: dict) -> Reply:
    return chat(["Sentiment: positive"] * body.get("n", 1))


class LoopbackServer:
    """Runs in a thread; `behave` maps each request body to a reply. It requires the key `KEY`."""

    def __init__(self, behave: Callable[[dict], Reply] = sampling) -> None:
        self.behave = behave
        self.bodies: list[dict] = []
        self.heads: list[tuple[str, dict[str, str]]] = []  # path and headers of each call
        self.key_header, self.key = "Authorization", f"Bearer {KEY}"
        self.in_flight = self.most_in_flight = 0
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    @property
    def requests(self) -> list[dict]:
        """The request bodies that were not probes."""
        return [body for body in self.bodies if not is_probe(body)]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        app = web.Application(client_max_size=2**28)
        self.routes(app)
        runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/{path:.*}chat/completions", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.heads.append((request.path_qs, dict(request.headers)))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.behave(body)
            if self.key and request.headers.get(self.key_header) != self.key:
                reply = refusal(401, f"bad key {request.headers.get(self.key_header)}")
            if reply.after_s:
                await asyncio.sleep(reply.after_s)
        finally:
            self.in_flight -= 1
        if reply.pieces is not None:
            return await self._stream(request, reply)
        if reply.cut is None:
            body = reply.body if isinstance(reply.body, bytes) else reply.body.encode()
            return web.Response(status=reply.status, body=body, headers=reply.headers)
        assert isinstance(reply.body, str)
        if reply.cut:
            response = web.StreamResponse(headers={**reply.headers, "Content-Length": str(len(reply.body))})
            await response.prepare(request)
            await response.write(reply.body[: reply.cut].encode())
        else:
            response = web.StreamResponse()
        assert request.transport is not None
        request.transport.close()
        return response

    @staticmethod
    async def _stream(request: web.Request, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        try:
            await response.prepare(request)
            for piece in reply.pieces or ():
                await asyncio.sleep(reply.pause_s)
                await response.write(piece)
        except ConnectionError:
            pass
        return response

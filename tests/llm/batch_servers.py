"""A loopback imitation of OpenAI's files, batches and chat completions, well or badly behaved, for tests."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.llm.servers import KEY, LoopbackServer, Reply, is_probe, refusal


class BatchLoopback(LoopbackServer):
    """Answers a batch by `behave` when it is first polled, unless `hold`; `answer_counts` counts the custom ids it answered.

    Attributes:
        answers: selects the lines of a batch that get an answer; by default all, shuffled.
        ends: the final status of a batch, by its number from 1.
        refuses: HTTP statuses for the next calls, by method and last part of the path: `{"POST files": [429, 500]}`.
        late: as `refuses`, but the call is carried out and only its reply is lost.
    """

    def __init__(self, behave: Callable[[dict], Reply]) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.answer_counts: Counter[str] = Counter()
        self.contents: Counter[str] = Counter()  # answered bodies
        self.calls: Counter[str] = Counter()
        self.answers: Callable[[list[dict]], list[dict]] = lambda lines: random.Random(0).sample(lines, len(lines))
        self.ends: Callable[[int], str] = lambda number: "completed"
        self.failure = ("invalid", "no")
        self.refuses: dict[str, list[int]] = {}
        self.late: dict[str, list[int]] = {}
        self.hold = threading.Event()  # while set, batches stay in progress
        super().__init__(behave)

    @property
    def sizes(self) -> list[int]:
        """Number of requests in each batch; the first text of a run is a single call."""
        return [len(batch["lines"]) for batch in self.batches.values()]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = await super()._answer(request)
        if not is_probe(body) and response.status == 200:
            self.contents[json.dumps(body, sort_keys=True)] += 1
        return response

    def routes(self, app: web.Application) -> None:
        super().routes(app)
        app.router.add_post("/v1/files", self._guarded("POST files", self._upload))
        app.router.add_get("/v1/files/{id}/content", self._guarded("GET content", self._content))
        app.router.add_post("/v1/batches", self._guarded("POST batches", self._create))
        app.router.add_get("/v1/batches", self._guarded("GET list", self._list))
        app.router.add_get("/v1/batches/{id}", self._guarded("GET batches", self._retrieve))

    def _guarded(self, name: str, handle: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self.calls[name] += 1
            if request.headers.get("Authorization") != f"Bearer {KEY}" or not self.key:
                reply = refusal(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
            elif self.refuses.get(name):
                reply = refusal(self.refuses[name].pop(0), "Rate limit reached", Retry_After="0")
            else:
                reply = await handle(request)
                if self.late.get(name):
                    reply = refusal(self.late[name].pop(0), "Bad gateway")
            body = reply.body if isinstance(reply.body, bytes) else reply.body.encode()
            return web.Response(status=reply.status, body=body, headers=reply.headers)

        return guarded

    async def _upload(self, request: web.Request) -> Reply:
        form = await request.post()
        assert form["purpose"] == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        return Reply(body=json.dumps({"id": name, "object": "file"}))

    async def _create(self, request: web.Request) -> Reply:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        name = f"batch_{len(self.batches) + 1}"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        assert len({line["custom_id"] for line in lines}) == len(lines)
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        self.batches[name] = {"id": name, "status": "validating", "metadata": body["metadata"], "lines": lines}
        return self._batch_reply(name)

    async def _list(self, request: web.Request) -> Reply:
        names = list(reversed(self.batches))
        start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = names[start : start + 2]  # short pages, so that there are several
        entries = [json.loads(self._batch_reply(name).body) for name in page]
        return Reply(body=json.dumps({"object": "list", "data": entries, "has_more": start + 2 < len(names)}))

    async def _retrieve(self, request: web.Request) -> Reply:
        name = request.match_info["id"]
        if name not in self.batches:
            return refusal(404, f"No batch found with id '{name}'.")
        batch = self.batches[name]
        batch["status"] = "in_progress" if batch["status"] == "validating" else batch["status"]
        if not self.hold.is_set() and batch["status"] == "in_progress":
            self._finish(batch)
        return self._batch_reply(name)

    async def _content(self, request: web.Request) -> Reply:
        name = request.match_info["id"]
        return Reply(body=self.files[name]) if name in self.files else refusal(404, "no such file")

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.ends(list(self.batches).index(batch["id"]) + 1)
        if batch["status"] == "failed":
            code, message = self.failure
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": 1, "param": None}]}
            return
        output, errors = [], []
        for line in self.answers(batch["lines"]):
            reply = self.behave(line["body"])
            body = json.loads(reply.body)
            answer = {"id": "x", "custom_id": line["custom_id"], "error": None}
            answer["response"] = {"status_code": reply.status, "request_id": "r", "body": body}
            (output if reply.status == 200 else errors).append(answer)
            if reply.status == 200:
                self.answer_counts[line["custom_id"]] += 1
                self.contents[json.dumps(line["body"], sort_keys=True)] += 1
        answered = {line["custom_id"] for line in output + errors}
        if batch["status"] in ("expired", "cancelled"):
            error = {
                "code": "batch_expired",
                "message": "This request could not be executed before the completion window expired.",
            }
            missing = [line["custom_id"] for line in batch["lines"] if line["custom_id"] not in answered]
            errors += [{"id": "x", "custom_id": name, "response": None, "error": error} for name in missing]
        for kind, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                batch[kind] = f"file-{len(self.files)}"
                self.files[batch[kind]] = "".join(json.dumps(line) + "\n" for line in lines).encode()

    def _batch_reply(self, name: str) -> Reply:
        batch = self.batches[name]
        fields = {key: value for key, value in batch.items() if key != "lines"}
        is_complete = batch["status"] == "completed"
        counts = {"total": len(batch["lines"]), "completed": is_complete * len(batch["lines"]), "failed": 0}
        return Reply(body=json.dumps(fields | {"object": "batch", "request_counts": counts}))

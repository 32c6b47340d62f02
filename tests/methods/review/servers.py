"""Loopback servers that respond to reviews as Label Studio 1.23.2 and Argilla 2.8.0 did, and may fail on request."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from findistill.data.spans import Span
from findistill.methods.review.backends import argilla, label_studio
from findistill.methods.review.decisions import Answer

KEY = "4f1c0e77-never-in-a-log"

Reply = tuple[int, Any]


@dataclass
class Imitation:
    """What the servers share. With `fail_after`, the server answers that many more requests, then hangs up on each."""

    fail_after: int | None = None
    revoked: bool = False
    calls: list[tuple[str, str]] = field(default_factory=list)
    reviewers: list[str] = field(default_factory=lambda: ["ann@example.org", "bob@example.org"])
    clock: Iterator[int] = field(default_factory=lambda: count(10))
    url: str = ""

    def now(self) -> str:
        seconds = next(self.clock)
        return f"2026-01-05T10:{seconds // 60:02d}:{seconds % 60:02d}.5"

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        raise NotImplementedError

    def authorized(self, headers: Any) -> bool:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator["Imitation"]:
        imitation = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if imitation.fail_after is not None:
                    imitation.fail_after -= 1
                    if imitation.fail_after < 0:
                        self.close_connection = True
                        return
                address = urlsplit(self.path)
                imitation.calls.append((self.command, address.path))
                query = {name: values[-1] for name, values in parse_qs(address.query).items()}
                status, content = 401, {"detail": f"Invalid token {KEY}."}
                if imitation.authorized(self.headers) and not imitation.revoked:
                    status, content = imitation.answer(self.command, address.path, query, json.loads(body or b"null"))
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass
class LabelStudio(Imitation):
    variable = "LABEL_STUDIO_API_KEY"
    backend = "label_studio"
    projects: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)

    def authorized(self, headers: Any) -> bool:
        return bool(headers["Authorization"] == f"Token {KEY}")

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["users"]:
                return 200, [{"id": n, "email": name, "username": ""} for n, name in enumerate(self.reviewers, 1)]
            case "GET", ["projects"]:
                return 200, {"results": [each for each in self.projects if query["title"] in each["title"]]}
            case "POST", ["projects"]:
                self.projects.append({**body, "id": len(self.projects) + 1})
                return 201, self.projects[-1]
            case "POST", ["projects", project, "import"]:
                for task in body:
                    new = {"predictions": [], **task, "id": len(self.tasks) + 1, "project": int(project), "annotations": []}
                    self.tasks.append(new)
                return 201, {"task_count": len(body)}
            case "GET", ["tasks"]:
                size, page = int(query["page_size"]), int(query["page"])
                own = [task for task in self.tasks if task["project"] == int(query["project"])]
                part = own[size * (page - 1) : size * page]
                return (200, {"total": len(own), "tasks": part}) if part or not own else (404, {"detail": "Invalid page."})
        return 404, {"detail": "Not found."}

    def ids(self) -> list[str]:
        return [task["data"]["text_id"] for task in self.tasks]

    def suggested(self, text_id: str) -> Any:
        task = next(task for task in self.tasks if task["data"]["text_id"] == text_id)
        return task["predictions"][0]["result"] if task["predictions"] else None

    def decide(self, text_id: str, reviewer: str, answer: Answer | None, seconds: float = 2.0, **changed: Any) -> None:
        task = next(task for task in self.tasks if task["data"]["text_id"] == text_id)
        result = [] if answer is None else label_studio.as_result(task["data"]["text"], answer)
        task["annotations"].append({
            "result": result, "completed_by": 1 + self.reviewers.index(reviewer), "was_cancelled": answer is None,
            "lead_time": seconds, "updated_at": self.now(), **changed,
        })  # fmt: skip


@dataclass
class Argilla(Imitation):
    variable = "ARGILLA_API_KEY"
    backend = "argilla"
    datasets: list[dict[str, Any]] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def authorized(self, headers: Any) -> bool:
        return bool(headers["X-Argilla-Api-Key"] == KEY)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        users = [{"id": f"u{n}", "username": name, "api_key": KEY} for n, name in enumerate(self.reviewers)]
        match method, path.strip("/").split("/")[2:]:
            case "GET", ["me"]:
                return 200, users[0]
            case "GET", ["me", "workspaces"]:
                return 200, {"items": [{"id": "w1", "name": "argilla"}]}
            case "GET", ["workspaces", "w1", "users"]:
                return 200, {"items": users}
            case "GET", ["me", "datasets"]:
                return 200, {"items": self.datasets}
            case "POST", ["datasets"]:
                self.datasets.append({**body, "id": f"d{len(self.datasets)}", "status": "draft"})
                return 201, self.datasets[-1]
            case "GET", ["datasets", _, ("fields" | "questions") as kind]:
                return 200, {"items": getattr(self, kind)}
            case "POST", ["datasets", _, ("fields" | "questions") as kind]:
                getattr(self, kind).append({**body, "id": f"{kind}0"})
                return 201, getattr(self, kind)[-1]
            case "PUT", ["datasets", dataset, "publish"]:
                entry = next(each for each in self.datasets if each["id"] == dataset)
                entry["status"] = "ready"
                return 200, entry
            case "PUT", ["datasets", _, "records", "bulk"]:
                for record in body["items"]:
                    self.records.setdefault(record["external_id"], {"responses": []}).update(record)
                    for suggestion in record.get("suggestions", []):
                        if fault := self.fault(record["fields"]["text"], suggestion["value"]):
                            return 422, {"detail": fault}
                return 200, {"items": []}
            case "GET", ["datasets", _, "records"]:
                start = int(query["offset"])
                part = list(self.records.values())[start : start + int(query["limit"])]
                return 200, {"items": part, "total": len(self.records)}
        return 404, {"detail": "Not found."}

    @staticmethod
    def fault(text: str, value: Any) -> str:
        """The real server's objection to spans: offsets beyond the number of code points."""
        beyond = isinstance(value, list) and any(each["end"] > len(text) or each["start"] > len(text) - 1 for each in value)
        return "span question response value `end` must have a value lower or equal than the length" if beyond else ""

    def ids(self) -> list[str]:
        return list(self.records)

    def suggested(self, text_id: str) -> Any:
        suggestions = self.records[text_id].get("suggestions")
        return suggestions[0]["value"] if suggestions else None

    def decide(self, text_id: str, reviewer: str, answer: Answer | None, seconds: float = 2.0, **changed: Any) -> None:
        record = self.records[text_id]
        value = None if answer is None else argilla.as_value(record["fields"]["text"], answer)
        assert not self.fault(record["fields"]["text"], value)
        values = {} if answer is None else {self.questions[0]["name"]: {"value": value}}
        record["responses"].append({
            "user_id": f"u{self.reviewers.index(reviewer)}", "status": "discarded" if answer is None else "submitted",
            "values": values, "updated_at": self.now(), **changed,
        })  # fmt: skip


Server = LabelStudio | Argilla


def settings(server: Imitation | None = None, **changed: Any) -> Any:
    """The `review` section."""
    url = server.url if server else None
    values = {
        "backend": getattr(server, "backend", "file"), "size": 100, "suggestions": None, "files": ["review.csv"], "url": url,
        "project": "news", "workspace": None, "reviewers": 1, "adjudicator": None, "timeout_s": 10.0,
    }  # fmt: skip
    return SimpleNamespace(**values | changed)


def company(*offsets: tuple[int, int]) -> tuple[Span, ...]:
    return tuple(Span(start, end, "company") for start, end in offsets)

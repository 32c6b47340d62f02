"""A loopback imitation of the Hugging Face hub: repositories, LFS uploads and commits; it refuses or dies on request."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_never_to_be_printed_0123456789abcdef"
LARGE = (".safetensors", ".onnx", ".parquet", ".npy")


class Repository:
    def __init__(self, *, private: bool, files: dict[str, bytes] | None = None) -> None:
        self.private = private
        self.files = {".gitattributes": b"*.safetensors filter=lfs", **(files or {})}
        self.commits = 0

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    @property
    def tags(self) -> list[str]:
        parts = self.files.get("README.md", b"").decode().split("---\n")
        return (yaml.safe_load(parts[1]) or {}).get("tags", []) if len(parts) > 2 else []


class Hub:
    """Runs in a thread at `url`.

    Attributes:
        repositories: Repositories by kind and name, such as `models/me/moon`.
        large: Uploaded objects by SHA-256; they are in no repository until a commit names them.
        dies_at: Part of an address: the hub hangs up on the first request whose address contains it, and on all later ones; with
            `hears_the_last` it still carries out the first.
        refuses: Status codes by part of an address.
        calls: The method, address and token of each request.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.dies_at = ""
        self.dead = False
        self.hears_the_last = False
        self.refuses: dict[str, int] = {}
        self.calls: list[tuple[str, str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                hub.answer(self)

            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        body = call.rfile.read(int(call.headers.get("Content-Length") or 0))
        token = call.headers.get("Authorization", "")
        self.calls.append((call.command, call.path, token))
        self.dead = self.dead or bool(self.dies_at and self.dies_at in call.path)
        if self.dead:
            if self.hears_the_last and self.dies_at in call.path:
                self.hears_the_last = False
                self.reply(call.path, body)
            call.close_connection = True
            return
        refused = next((status for part, status in self.refuses.items() if part in call.path), None)
        if not refused and token != f"Bearer {TOKEN}" and not call.path.startswith("/lfs/"):
            refused = 401
        status, answer = (refused, {"error": f"no: {token}"}) if refused else self.reply(call.path, body)
        content = json.dumps(answer).encode()
        call.send_response(status)
        call.send_header("Content-Type", "application/json")
        call.send_header("Content-Length", str(len(content)))
        call.end_headers()
        call.wfile.write(content)

    def reply(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/repos/create":
            request = json.loads(body)
            place = f"{request.get('type') or 'model'}s/{request['organization']}/{request['name']}"
            there = place in self.repositories
            repository = self.repositories.setdefault(
                place, Repository(private=request.get("visibility") == "private" or bool(request.get("private")))
            )
            return (409 if there else 200), {"url": f"{self.url}/{place.removeprefix('models/')}", "private": repository.private}
        if path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            return (
                (200, {"errors": [], "warnings": []}) if header.get("license") else (400, {"errors": [{"message": "no license"}]})
            )
        if path.startswith("/lfs/"):
            self.large[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": one["oid"], "size": one["size"]}
                | ({} if one["oid"] in self.large else {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}})
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        place, _, action = path.removeprefix("/api/").partition("/preupload/")
        if action:
            repository = self.repositories[place]
            return 200, {"files": [self._mode(one["path"], repository) for one in json.loads(body)["files"]]}
        place, _, action = path.removeprefix("/api/").partition("/commit/")
        if action:
            return self._commit(place, [json.loads(line) for line in body.splitlines()])
        place = path.removeprefix("/api/").partition("/revision/")[0].partition("?")[0]
        if place not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[place]
        return 200, {
            "id": place.partition("/")[2], "sha": repository.sha, "private": repository.private, "tags": repository.tags,
            "siblings": [{"rfilename": name} for name in repository.files],
        }  # fmt: skip

    @staticmethod
    def _mode(name: str, repository: Repository) -> dict[str, Any]:
        large, content = name.endswith(LARGE), repository.files.get(name)
        blob = None if content is None else b"blob %d\0" % len(content) + content
        oid = None if content is None or blob is None else (hashlib.sha256(content) if large else hashlib.sha1(blob)).hexdigest()
        return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(self, place: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        repository = self.repositories[place]
        if (parent := lines[0]["value"].get("parentCommit")) and parent != repository.sha:
            return 412, {"error": "changed meanwhile"}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits += 1
        return 200, {
            "commitUrl": f"{self.url}/{place.removeprefix('models/')}/commit/{repository.sha}",
            "commitOid": repository.sha,
            "success": True,
        }

"""The real Label Studio and Argilla, on loopback, each in a separate environment that is created once (`.bench/`).

Argilla's server requires Elasticsearch for search and Redis for its jobs; reviews use neither. `argilla_without_search.py`
starts it without them. Users run a stock server.
"""

import os
import re
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from findistill.methods.review.backends import argilla, label_studio
from findistill.methods.review.decisions import Answer
from tests.conftest import ROOT

ENVIRONMENTS = ROOT / ".bench"
PASSWORD = "invented-password-1"
START_S = 180


def environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of an environment with these packages; skips the test if they cannot be installed."""
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(exist_ok=True)
    with FileLock(ENVIRONMENTS / f"{name}.lock"):
        ready = folder / "ready"
        if not (ready.exists() and ready.read_text() == " ".join(requirements)):
            venv.create(folder, with_pip=True, clear=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--timeout", "20", "--retries", "1", *requirements]
            result = subprocess.run(pip, capture_output=True, text=True, check=False)
            if result.returncode:
                pytest.skip(f"{name} cannot be installed: {(result.stderr.strip().splitlines() or ['?'])[-1][:200]}")
            ready.write_text(" ".join(requirements))
    return folder / "bin"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class RealServer:
    """A server that can be killed and started again on the same data."""

    variable: str
    backend: str
    key: str
    ready: str  # a path that responds once the server is up

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def commands(self) -> list[list[str | Path]]:
        """The commands that start it; the last one keeps running."""
        raise NotImplementedError

    def surroundings(self) -> dict[str, str]:
        raise NotImplementedError

    def start(self) -> None:
        env = {**os.environ, **self.surroundings(), "NO_PROXY": "127.0.0.1"}
        log = self.folder / "log"
        *before, last = self.commands()
        with log.open("a") as output:
            for command in before:
                subprocess.run(command, cwd=self.folder, env=env, stdout=output, stderr=output, check=True)
            self.process = process = subprocess.Popen(
                last, cwd=self.folder, env=env, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            try:
                if httpx.get(self.url + self.ready, timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.3)
        pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")

    def kill(self) -> None:
        """SIGKILL the process group: nothing shuts down cleanly."""
        process, self.process = self.process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @contextmanager
    def running(self) -> Iterator["RealServer"]:
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def decide(self, project: str, answers: dict[tuple[str, str], Answer | None]) -> None:
        """Submit answers by (id, reviewer), each the way the reviewer's page does."""
        raise NotImplementedError

    def suggested(self, project: str) -> list[tuple[str, Any]]:
        """The id of every text on the server and its suggestion, in the server's format."""
        raise NotImplementedError


class RealLabelStudio(RealServer):
    variable, backend, ready = "LABEL_STUDIO_API_KEY", "label_studio", "/health"
    key = "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233"
    reviewers = ("ann@example.org", "bob@example.org")

    def commands(self) -> list[list[str | Path]]:
        program = environment("label-studio", "label-studio==1.23.2") / "label-studio"
        account = ["--username", self.reviewers[0], "--password", PASSWORD, "--user-token", self.key]
        address = ["--internal-host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.folder)]
        return [[program, "start", "--no-browser", *address, *account]]

    def surroundings(self) -> dict[str, str]:
        return {
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "LATEST_VERSION_CHECK": "0", "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
        }  # fmt: skip

    def owner(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Token {self.key}"}, timeout=60)

    def sessions(self) -> dict[str, httpx.Client]:
        """A logged-in session for each reviewer; those without an account sign up by invitation."""
        with self.owner() as owner:
            known = {each["email"] for each in owner.get("/api/users").json()}
            invitation = owner.get("/api/invite").json()["invite_url"]
        browsers = {}
        for email in self.reviewers:
            browser = httpx.Client(base_url=self.url, timeout=60, follow_redirects=True)
            page = "/user/login/" if email in known else invitation
            [form] = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get(page).text)[:1]
            account = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": form}
            browser.post(page, data=account, headers={"Referer": f"{self.url}/user/login/"})
            browser.headers.update({"X-CSRFToken": browser.cookies["csrftoken"], "Referer": self.url})
            browsers[email] = browser
        return browsers

    def tasks(self, project: str) -> list[dict[str, Any]]:
        with self.owner() as owner:
            [entry] = owner.get("/api/projects", params={"title": project}).json()["results"]
            answer = owner.get("/api/tasks", params={"project": entry["id"], "page_size": 1000, "fields": "all"}).json()
            tasks: list[dict[str, Any]] = answer["tasks"]
            return tasks

    def decide(self, project: str, answers: dict[tuple[str, str], Answer | None]) -> None:
        tasks = {task["data"]["text_id"]: task for task in self.tasks(project)}
        browsers = self.sessions()
        for (text_id, reviewer), answer in answers.items():
            task = tasks[text_id]
            result = [] if answer is None else label_studio.as_result(task["data"]["text"], answer)
            annotation = {"result": result, "lead_time": 2.5, "was_cancelled": answer is None}
            response = browsers[reviewer].post(f"/api/tasks/{task['id']}/annotations/", json=annotation)
            assert response.status_code == 201, response.text

    def suggested(self, project: str) -> list[tuple[str, Any]]:
        return [
            (task["data"]["text_id"], [each["value"] for each in task["predictions"][0]["result"]])
            for task in self.tasks(project)
        ]

    def expected_suggestion(self, text: str, answer: Answer) -> Any:
        return [each["value"] for each in label_studio.as_result(text, answer)]


class RealArgilla(RealServer):
    variable, backend, ready = "ARGILLA_API_KEY", "argilla", "/api/v1/version"
    key = "invented.owner.key"
    reviewers = ("ann", "bob")

    def commands(self) -> list[list[str | Path]]:
        python = environment("argilla-server", "argilla-server==2.8.0", "click==8.1.8", "fakeredis==2.40.0") / "python"
        program = [python, "-m", "argilla_server", "database"]
        account = ["users", "create_default", "--api-key", self.key, "--password", PASSWORD]
        start = [python, Path(__file__).with_name("argilla_without_search.py"), str(self.port)]
        return [[*program, "migrate"], [*program, *account], start]

    def surroundings(self) -> dict[str, str]:
        return {
            "ARGILLA_HOME_PATH": str(self.folder / "home"), "HF_HUB_OFFLINE": "1", "ARGILLA_SEARCH_ENGINE": "none",
            "ARGILLA_AUTH_SECRET_KEY": "invented", "ARGILLA_ENABLE_TELEMETRY": "false",
        }  # fmt: skip

    def owner(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.url}/api/v1", headers={"X-Argilla-Api-Key": self.key}, timeout=60)

    def records(self, project: str) -> tuple[str, list[dict[str, Any]]]:
        with self.owner() as owner:
            [dataset] = [each for each in owner.get("/me/datasets").json()["items"] if each["name"] == project]
            [question] = owner.get(f"/datasets/{dataset['id']}/questions").json()["items"]
            params = {"limit": 1000, "include": "suggestions"}
            records: list[dict[str, Any]] = owner.get(f"/datasets/{dataset['id']}/records", params=params).json()["items"]
            return question["name"], records

    def decide(self, project: str, answers: dict[tuple[str, str], Answer | None]) -> None:
        question, rows = self.records(project)
        records = {record["external_id"]: record for record in rows}
        keys = {}
        with self.owner() as owner:
            [workspace] = owner.get("/me/workspaces").json()["items"]
            users = {each["username"]: each for each in owner.get("/users").json()["items"]}
            for name in self.reviewers:
                if name not in users:
                    account = {"username": name, "first_name": name, "password": PASSWORD, "role": "annotator"}
                    users[name] = owner.post("/users", json=account).json()
                    owner.post(f"/workspaces/{workspace['id']}/users", json={"user_id": users[name]["id"]}).raise_for_status()
                keys[name] = users[name]["api_key"]
        for (text_id, reviewer), answer in answers.items():
            record, body = records[text_id], {"status": "discarded", "values": {}}
            if answer is not None:
                body = {
                    "status": "submitted",
                    "values": {question: {"value": argilla.as_value(record["fields"]["text"], answer)}},
                }
            response = httpx.post(
                f"{self.url}/api/v1/records/{record['id']}/responses", json=body, headers={"X-Argilla-Api-Key": keys[reviewer]}
            )
            assert response.status_code == 201, response.text

    def suggested(self, project: str) -> list[tuple[str, Any]]:
        return [(record["external_id"], record["suggestions"][0]["value"]) for record in self.records(project)[1]]

    def expected_suggestion(self, text: str, answer: Answer) -> Any:
        return argilla.as_value(text, answer)

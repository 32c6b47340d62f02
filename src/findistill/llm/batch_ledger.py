"""The batches under way at a server, on disk: a request file and a state file for each.

A batch is written here before it is sent to the server, and removed once its responses are cached: a kill at any moment loses
no response, and the next run requests none twice. The custom ids of its calls tell which samples of which request they draw.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from findistill.core.files import read_json, replacing, write_json
from findistill.llm.batch_server import CHAT
from findistill.llm.engine import Response


@dataclass(frozen=True)
class Call:
    """One line of a batch: `count` samples of one request, from `first` on.

    `attempt` counts the responses to it that named no label, `failures` the batches that did not answer it, `dropped` the
    demonstrations that are left out.
    """

    key: int
    first: int
    count: int
    attempt: int = 0
    failures: int = 0
    dropped: int = 0

    @property
    def samples(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def custom_id(self) -> str:
        """Under 64 characters, a limit of servers."""
        return f"{self.key:016x}-{self.first}-{self.count}-{self.attempt}-{self.failures}-{self.dropped}"

    @classmethod
    def named(cls, custom_id: str) -> "Call":
        key, *numbers = custom_id.split("-")
        return cls(int(key, 16), *map(int, numbers))

    def failed(self) -> "Call":
        return replace(self, failures=self.failures + 1)


@dataclass
class Batch:
    """Calls that are submitted together. `file` and `batch` are the server's ids, once known."""

    name: str
    calls: list[Call]
    spent: dict[str, dict[str, Any]] = field(default_factory=dict)  # by custom id: usage of a call's earlier attempts
    file: str = ""
    batch: str = ""

    def earlier(self, call: Call) -> Response | None:
        """The usage of this call's earlier attempts."""
        spent = self.spent.get(call.custom_id)
        return Response("", call.first, **spent) if spent else None


class Ledger:
    """The batches of one response cache, whose lock must be held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> list[Batch]:
        """An earlier run's batches, oldest first; files of batches that were never sent, or were removed by hand, are deleted."""
        batches = []
        for state in self.folder.glob("*.json"):
            if not state.with_suffix(".jsonl").exists():
                state.unlink()
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda each: (each.stat().st_mtime_ns, each.name)):
            state = path.with_suffix(".json")
            if state.exists():
                batches.append(Batch(path.stem, [Call.named(line["custom_id"]) for line in _lines(path)], **read_json(state)))
            else:
                path.unlink()
        return batches

    def write(self, lines: Sequence[tuple[Call, str, Response | None]]) -> Batch:
        """Create a batch of these calls, each with its body as JSON and the usage of earlier attempts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = {call.custom_id: _taken(response) for call, _, response in lines if response is not None}
        batch = Batch(uuid.uuid4().hex, [call for call, _, _ in lines], earlier)
        with replacing(self.requests(batch)) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(f"{line(call, body)}\n" for call, body, _ in lines)
            file.flush()
            os.fsync(file.fileno())
        self.save(batch)
        return batch

    def save(self, batch: Batch) -> None:
        """Save the state of a batch."""
        write_json(self.requests(batch).with_suffix(".json"), {"file": batch.file, "batch": batch.batch, "spent": batch.spent})

    def requests(self, batch: Batch) -> Path:
        return self.folder / f"{batch.name}.jsonl"

    def output(self, batch: Batch) -> Path:
        """Where an output file is stored while it is read."""
        return self.folder / f"{batch.name}.output"

    def bodies(self, batch: Batch) -> dict[str, str]:
        """The body of every call, as JSON, by its custom id."""
        return {each["custom_id"]: json.dumps(each["body"]) for each in _lines(self.requests(batch))}

    def remove(self, batch: Batch) -> None:
        for path in (self.requests(batch).with_suffix(".json"), self.requests(batch), self.output(batch)):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def line(call: Call, body: str) -> str:
    """A call as a line of a request file."""
    return f'{{"custom_id": "{call.custom_id}", "method": "POST", "url": "{CHAT}", "body": {body}}}'


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _taken(response: Response) -> dict[str, Any]:
    names = ("attempts", "tokens_in", "tokens_out", "tokens_cached", "seconds")
    return {name: getattr(response, name) for name in names}

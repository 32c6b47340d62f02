"""Argilla, through its REST API (2.8).

Its UI counts UTF-16 code units, as browsers do, but its server checks offsets against the number of code points. So offsets are
converted, and a text is padded with one blank per character of two units: the server then accepts every offset.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from findistill.data.spans import Span, from_utf16, to_utf16
from findistill.errors import UserError
from findistill.methods.review.backends import Content
from findistill.methods.review.backends.http import Server, api_key
from findistill.methods.review.decisions import Answer, Decision, Question, Suggestion

KEY, VERSION = "ARGILLA_API_KEY", "2.8"
PAGE = 100  # records per call
LONGEST_S = 300.0  # between two submissions of a reviewer; more is a pause
AGENT = "findistill"
API = "/api/v1"


class Backend:
    advice = "submit each text, or discard it"

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        key = api_key(KEY, "which is in your settings in Argilla")
        self._server = Server("Argilla", settings.url, KEY, key, settings.timeout_s)
        self._server.authorize(**{"X-Argilla-Api-Key": key})
        self._dataset: str | None = None
        self._published = False
        self._texts: dict[str, str] = {}
        self.place = f"the dataset {settings.project} of Argilla at {self._server.url}"

    def check(self) -> None:
        with self._server.expected(VERSION):
            own = self._server.get(f"{API}/me/workspaces")["items"]
            names = {workspace["name"]: workspace["id"] for workspace in own}
            chosen = self._settings.workspace or next(iter(names), None)
            if chosen not in names:
                there = f"available: {', '.join(names)}" if names else "create one there"
                raise UserError(f"review.workspace={chosen}: no such workspace in Argilla at {self._server.url}; {there}")
            self._workspace = names[chosen]
            for dataset in self._server.get(f"{API}/me/datasets")["items"]:
                if dataset["name"] == self._settings.project and dataset["workspace_id"] == self._workspace:
                    self._dataset, self._published = dataset["id"], dataset["status"] == "ready"

    def read(self, question: Question, known: dict[str, Suggestion]) -> Content:
        self.check()
        content = Content()
        if self._dataset is None or not self._published:
            return content
        with self._server.expected(VERSION):
            if question.column not in self._questions():
                raise UserError(
                    f"{self.place} has no question {question.column!r}: it asks for something else; choose another review.project"
                )
            users = [self._server.get(f"{API}/me"), *self._server.get(f"{API}/workspaces/{self._workspace}/users")["items"]]
            names = {user["id"]: user["username"] for user in users}
            submitted = defaultdict(list)
            for record in self._records():
                text = record["fields"]["text"]
                text = text[: len(text) - padding(text)] if text else text
                text_id = str(record["external_id"])
                content.texts[text_id] = text
                for response in record["responses"]:
                    if response["status"] not in ("submitted", "discarded"):
                        continue
                    reviewer = names.get(response["user_id"], f"user {response['user_id']}")
                    values = response["values"] or {}
                    value = values.get(question.column, {}).get("value") if response["status"] == "submitted" else None
                    where = f"{self.place}, record {text_id} by {reviewer}"
                    answer = None if value is None else decided(value, text, question, where)
                    at = datetime.fromisoformat(response["updated_at"])
                    submitted[reviewer].append((at, Decision(text_id, text, reviewer, answer)))
        content.decisions.extend(each for own in submitted.values() for each in _timed(own))
        self._texts = content.texts
        return content

    def push(self, question: Question, suggestions: Sequence[Suggestion]) -> int:
        new = [each for each in suggestions if each.id not in self._texts]
        if not new:
            return 0
        with self._server.expected(VERSION):
            self._set_up(question)
            question_id = self._questions()[question.column]
            for start in range(0, len(new), PAGE):  # each call is one transaction; existing records are not duplicated
                records = [as_record(each, question_id) for each in new[start : start + PAGE]]
                self._server.request("PUT", f"{API}/datasets/{self._dataset}/records/bulk", json={"items": records})
        return len(new)

    def _set_up(self, question: Question) -> None:
        """Create the dataset, or complete one that an interrupted run began."""
        if self._dataset is None:
            settings = {
                "name": self._settings.project, "workspace_id": self._workspace, "allow_extra_metadata": True,
                "distribution": {"strategy": "overlap", "min_submitted": self._settings.reviewers},
            }  # fmt: skip
            self._dataset = self._server.request("POST", f"{API}/datasets", json=settings)["id"]
        if self._published:
            return
        at = f"{API}/datasets/{self._dataset}"
        if not self._server.get(f"{at}/fields")["items"]:
            field = {"name": "text", "title": "Text", "required": True, "settings": {"type": "text", "use_markdown": False}}
            self._server.request("POST", f"{at}/fields", json=field)
        if not self._questions():
            body = {"name": question.column, "title": question.column, "required": True, "settings": question_settings(question)}
            self._server.request("POST", f"{at}/questions", json=body)
        self._server.request("PUT", f"{at}/publish")
        self._published = True

    def _questions(self) -> dict[str, str]:
        return {each["name"]: each["id"] for each in self._server.get(f"{API}/datasets/{self._dataset}/questions")["items"]}

    def _records(self) -> Iterator[dict[str, Any]]:
        total, read = 1, 0
        while read < total:
            answer = self._server.get(f"{API}/datasets/{self._dataset}/records", offset=read, limit=PAGE, include="responses")
            total = answer["total"]
            yield from answer["items"]
            if not answer["items"]:
                return
            read += len(answer["items"])


def _timed(submitted: list[tuple[datetime, Decision]]) -> Iterator[Decision]:
    """A reviewer's decisions, each with the seconds since the one before; Argilla does not measure how long they took."""
    before = None
    for at, decision in sorted(submitted, key=lambda each: each[0]):
        seconds = (at - before).total_seconds() if before else None
        fits = seconds is not None and 0 < seconds <= LONGEST_S
        yield Decision(decision.id, decision.text, decision.reviewer, decision.answer, seconds if fits else None)
        before = at


def padding(text: str) -> int:
    """Number of blanks appended to a text for its characters of two UTF-16 code units."""
    return min(sum(ord(character) > 0xFFFF for character in text), len(text) - len(text.rstrip(" ")))


def question_settings(question: Question) -> dict[str, Any]:
    options = [{"value": label, "text": label} for label in question.labels]
    if not question.of_spans:
        return {"type": "label_selection", "options": options}
    return {"type": "span", "field": "text", "options": options, "allow_overlapping": False, "allow_character_annotation": True}


def as_record(suggestion: Suggestion, question_id: str) -> dict[str, Any]:
    text = suggestion.text + " " * sum(ord(character) > 0xFFFF for character in suggestion.text)
    record: dict[str, Any] = {
        "external_id": suggestion.id, "fields": {"text": text}, "metadata": {"agreement": round(suggestion.certainty, 3)}
    }  # fmt: skip
    if suggestion.answer is None:
        return record
    scores: Any = suggestion.certainty if isinstance(suggestion.answer, str) else list(suggestion.scores) or None
    proposed = {
        "question_id": question_id,
        "value": as_value(suggestion.text, suggestion.answer),
        "agent": AGENT,
        "type": "model",
    }
    return {**record, "suggestions": [{**proposed, "score": scores}]}


def as_value(text: str, answer: Answer) -> Any:
    """An answer in Argilla's format."""
    if isinstance(answer, str):
        return answer
    return [{"start": each.start, "end": each.end, "label": each.label} for each in to_utf16(text, answer)]


def decided(value: Any, text: str, question: Question, where: str) -> Answer:
    """The answer in a response's value.

    Raises:
        UserError: a label or offset is wrong.
    """
    if not question.of_spans:
        return question.check(str(value), text, where)
    units = [Span(int(each["start"]), int(each["end"]), str(each["label"])) for each in value]
    try:
        return question.check(tuple(from_utf16(text, units)), text, where)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None

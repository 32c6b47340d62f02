"""Label Studio, through its REST API (1.23). Its offsets count code points: its editor converts them from the browser's."""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.methods.review.backends import Content
from findistill.methods.review.backends.http import Server, api_key
from findistill.methods.review.decisions import Answer, Decision, Question, Suggestion

KEY, VERSION = "LABEL_STUDIO_API_KEY", "1.23"
PAGE = 100  # tasks per call
ID = "text_id"
AGENT = "findistill"


class Backend:
    advice = "submit each text, or skip it"

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._key = api_key(KEY, "an access token of your account in Label Studio")
        self._server = Server("Label Studio", settings.url, KEY, self._key, settings.timeout_s, renew=self._authorize)
        self._project: int | None = None
        self._texts: dict[str, str] = {}
        self.place = f"the project {settings.project} of Label Studio at {self._server.url}"

    def check(self) -> None:
        self._authorize()
        self._find()

    def read(self, question: Question, known: dict[str, Suggestion]) -> Content:
        self.check()
        content = Content()
        if self._project is None:
            return content
        with self._server.expected(VERSION):
            names = {user["id"]: user["email"] or user["username"] for user in self._server.get("/api/users")}
            for task in self._tasks():
                if ID not in task["data"]:
                    content.texts[f"task {task['id']}"] = str(task["data"].get("text", ""))
                    continue
                text_id, text = str(task["data"][ID]), str(task["data"]["text"])
                content.texts[text_id] = text
                latest: dict[str, Any] = {}
                for annotation in sorted(task["annotations"], key=lambda each: each["updated_at"]):
                    by = annotation["completed_by"]
                    user = by["id"] if isinstance(by, dict) else by
                    latest[names.get(user, f"user {user}")] = annotation
                for reviewer, annotation in latest.items():
                    where = f"{self.place}, task {task['id']} by {reviewer}"
                    answer = None if annotation["was_cancelled"] else decided(annotation["result"], text, question, where)
                    seconds = annotation["lead_time"]
                    content.decisions.append(
                        Decision(text_id, text, reviewer, answer, None if seconds is None else float(seconds))
                    )
        self._texts = content.texts
        content.decisions[:] = {(each.id, each.reviewer): each for each in content.decisions}.values()
        return content

    def push(self, question: Question, suggestions: Sequence[Suggestion]) -> int:
        new = [each for each in suggestions if each.id not in self._texts]
        with self._server.expected(VERSION):
            if self._project is None and new:
                self._project = self._server.request("POST", "/api/projects", json=self._new_project(question))["id"]
            for start in range(0, len(new), PAGE):  # each call is one transaction
                tasks = [as_task(each, question) for each in new[start : start + PAGE]]
                self._server.request("POST", f"/api/projects/{self._project}/import", json=tasks)
        return len(new)

    def _authorize(self) -> None:
        """A legacy token is sent as it is; a personal access token is exchanged for one that expires in minutes."""
        self._server.authorize(Authorization=f"Token {self._key}")
        if self._key.count(".") != 2:
            return
        with self._server.expected(VERSION):
            access = self._server.request("POST", "/api/token/refresh", json={"refresh": self._key})["access"]
        self._server.authorize(Authorization=f"Bearer {access}")

    def _find(self) -> None:
        title = self._settings.project
        with self._server.expected(VERSION):
            pages = self._server.get("/api/projects", title=title, page_size=PAGE)["results"]  # titles that contain it
            ids = sorted(project["id"] for project in pages if project["title"] == title)
        self._project = ids[0] if ids else None

    def _tasks(self) -> Iterator[dict[str, Any]]:
        total, page, read = 1, 1, 0
        while read < total:
            answer = self._server.get("/api/tasks", project=self._project, page=page, page_size=PAGE, fields="all")
            total, page = answer["total"], page + 1
            yield from answer["tasks"]
            if not answer["tasks"]:
                return
            read += len(answer["tasks"])

    def _new_project(self, question: Question) -> dict[str, Any]:
        return {
            "title": self._settings.project, "label_config": labelling_config(question), "model_version": AGENT,
            "maximum_annotations": self._settings.reviewers, "show_collab_predictions": True,
        }  # fmt: skip


def labelling_config(question: Question) -> str:
    """The XML of a project: one choice of the labels, or mentions marked in the text."""
    text = '<Text name="text" value="$text"/>'
    if question.of_spans:
        labels = "".join(f"<Label value={quoteattr(label)}/>" for label in question.labels)
        return f'<View><Labels name="spans" toName="text">{labels}</Labels>{text}</View>'
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in question.labels)
    attributes = 'name="label" toName="text" choice="single" required="true" showInline="true"'
    return f"<View>{text}<Choices {attributes}>{choices}</Choices></View>"


def as_task(suggestion: Suggestion, question: Question) -> dict[str, Any]:
    data = {"text": suggestion.text, ID: suggestion.id, "agreement": round(suggestion.certainty, 3)}
    if suggestion.answer is None:
        return {"data": data}
    result = as_result(suggestion.text, suggestion.answer)
    return {"data": data, "predictions": [{"model_version": AGENT, "score": suggestion.certainty, "result": result}]}


def as_result(text: str, answer: Answer) -> list[dict[str, Any]]:
    """An answer in Label Studio's format."""
    if isinstance(answer, str):
        return [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [answer]}}]
    return [
        {"from_name": "spans", "to_name": "text", "type": "labels",
         "value": {"start": each.start, "end": each.end, "text": text[each.start : each.end], "labels": [each.label]}}
        for each in answer
    ]  # fmt: skip


def decided(result: Any, text: str, question: Question, where: str) -> Answer | None:
    """The answer in an annotation's `result`; None where no label was chosen.

    Raises:
        UserError: a label or offset is wrong, or the offsets do not match the marked text.
    """
    kind = "labels" if question.of_spans else "choices"
    values = [each["value"] for each in result if each["type"] == kind]
    if not question.of_spans:
        chosen = [choice for value in values for choice in value["choices"]]
        if len(chosen) > 1:
            raise UserError(f"{where}: {len(chosen)} labels chosen ({', '.join(chosen)}), but only one is allowed; fix it there")
        return question.check(chosen[0], text, where) if chosen else None
    spans = [Span(int(value["start"]), int(value["end"]), label) for value in values for label in value["labels"]]
    answer = question.check(tuple(spans), text, where)
    for value in values:
        marked, here = str(value.get("text") or ""), text[int(value["start"]) : int(value["end"])]
        if marked and "".join(marked.split()) != "".join(here.split()):
            raise UserError(
                f"{where}: {value['start']}:{value['end']} is {here[:40]!r} in the text, but {marked[:40]!r} was marked; "
                "mark it again"
            )
    return answer

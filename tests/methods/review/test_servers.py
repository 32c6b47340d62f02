"""Reviews in imitations of Label Studio and Argilla: what is pushed and pulled, and what happens when they fail."""

from collections.abc import Iterator
from typing import Any

import pytest

from findistill.data.spans import Span
from findistill.errors import UserError
from findistill.methods.review.backends import Content, backend
from findistill.methods.review.decisions import Question, Suggestion
from tests.methods.review.servers import KEY, Argilla, LabelStudio, Server, company, settings

LABELS = Question(("negative", "neutral", 'R&D <"up">'), of_spans=False)
COMPANIES = Question(("company", "fund & trust"), of_spans=True)
TEXT = "🚀 AT&T and O'Neil: AT&T é👩‍🚀 rose"
FOUND = (Span(2, 6, "company"), Span(11, 17, "fund & trust"), Span(19, 23, "company"))


@pytest.fixture(params=[LabelStudio, Argilla])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    instance: Server = request.param()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(instance.variable, KEY)
    with instance.running():
        yield instance


def suggestions(number: int, answer: Any = "negative") -> list[Suggestion]:
    return [Suggestion(f"t/{n}", f"{TEXT} {n}", answer, n / number, (0.5,) * len(answer)) for n in range(number)]


def pull(server: Server, question: Question, items: list[Suggestion], **changed: Any) -> Content:
    return backend(settings(server, **changed)).read(question, {each.id: each for each in items})


def push(server: Server, question: Question, items: list[Suggestion]) -> int:
    place = backend(settings(server))
    place.read(question, {each.id: each for each in items})
    return place.push(question, items)


def test_nothing_is_pushed_twice(server: Server) -> None:
    items = suggestions(230)
    assert push(server, LABELS, items[:150]) == 150
    assert push(server, LABELS, items) == 80
    assert push(server, LABELS, items) == 0
    assert server.ids() == [each.id for each in items]  # in this order, least certain first
    content = pull(server, LABELS, items)
    assert content.texts == {each.id: each.text for each in items} and not content.decisions


@pytest.mark.parametrize(("question", "answers"), [(LABELS, ("neutral", 'R&D <"up">')), (COMPANIES, (FOUND, ()))])
def test_what_reviewers_enter_is_what_is_pulled(server: Server, question: Question, answers: Any) -> None:
    items = suggestions(4, FOUND if question.of_spans else "negative")
    push(server, question, items)
    server.decide("t/0", "ann@example.org", answers[0], 3.0)
    server.decide("t/0", "bob@example.org", answers[1], 3.0)
    server.decide("t/1", "ann@example.org", None)
    content = pull(server, question, items)
    decisions = {(each.id, each.reviewer): each.answer for each in content.decisions}
    assert decisions == {
        ("t/0", "ann@example.org"): answers[0],
        ("t/0", "bob@example.org"): answers[1],
        ("t/1", "ann@example.org"): None,
    }
    assert all(each.text == items[int(each.id[2:])].text for each in content.decisions)
    assert pull(server, question, items) == content


def test_a_suggestion_is_shown_as_the_server_counts(server: Server) -> None:
    items = suggestions(1, FOUND)
    push(server, COMPANIES, items)
    spans = server.suggested("t/0")
    if isinstance(server, LabelStudio):  # its editor converts the browser's UTF-16 units to code points
        assert [(each["value"]["start"], each["value"]["end"], each["value"]["text"]) for each in spans][:1] == [(2, 6, "AT&T")]
    else:  # its page uses the browser's UTF-16 units, which count the rocket twice
        assert [(each["start"], each["end"]) for each in spans] == [(3, 7), (12, 18), (20, 24)]


def test_seconds(server: Server) -> None:
    items = suggestions(3)
    push(server, LABELS, items)
    for text_id in ("t/0", "t/1", "t/2"):
        server.decide(text_id, "ann@example.org", "neutral", 4.5)
    seconds = {each.id: each.seconds for each in pull(server, LABELS, items).decisions}
    # Argilla does not measure it: the time since the reviewer's previous decision is used.
    assert seconds == (
        {f"t/{n}": 4.5 for n in range(3)} if isinstance(server, LabelStudio) else {"t/0": None, "t/1": 1, "t/2": 1}
    )


@pytest.mark.parametrize("answered", range(9))
def test_a_server_that_goes_away_loses_nothing(server: Server, answered: int) -> None:
    items = suggestions(230)
    server.fail_after = answered
    try:
        push(server, LABELS, items)
        went_away = False
    except UserError as error:
        went_away = "cannot be reached" in str(error) and "run the same command again" in str(error)
        assert "\n" not in str(error)
    assert went_away or server.fail_after >= 0
    server.fail_after = None
    push(server, LABELS, items)
    assert sorted(server.ids()) == sorted(each.id for each in items)
    assert push(server, LABELS, items) == 0 and len(getattr(server, "projects", None) or server.datasets) == 1  # type: ignore[union-attr]


def refused(server: Server, question: Question = LABELS, **changed: Any) -> str:
    with pytest.raises(UserError) as error:
        pull(server, question, suggestions(3), **changed)
    assert "\n" not in str(error.value) and KEY not in str(error.value)
    return str(error.value)


def test_a_revoked_key(server: Server) -> None:
    server.revoked = True
    assert f"refuses the key in {server.variable} (401): it was revoked" in refused(server)


def test_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(server.variable)
    assert f"{server.variable} is not set" in refused(server)


def test_no_server(server: Server) -> None:
    assert "cannot be reached" in refused(server, url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "shape", [[], {"items": [{"title": "news"}], "results": [{"title": "news"}]}, {}, None, 7, b"<html>hello</html>"]
)
def test_a_server_of_another_version(server: Server, shape: Any) -> None:
    server.answer = lambda *call: (200, shape)  # type: ignore[method-assign]
    message = refused(server)
    assert "in another format than version" in message or "did not answer" in message


def test_a_server_that_refuses_says_why(server: Server) -> None:
    server.answer = lambda *call: (422, {"detail": f"no such thing, {KEY}"})  # type: ignore[method-assign]
    assert "(422)" in (message := refused(server)) and "no such thing" in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (company((0, 500)), "outside the text of"),
        (company((3, 3)), "is empty or outside"),
        (company((2, 8), (4, 10)), "overlap"),
        ((Span(2, 6, "person"),), "its label is not one of company, fund & trust"),
    ],
)
def test_wrong_spans_are_named_with_their_place(server: Server, answer: Any, message: str) -> None:
    push(server, COMPANIES, suggestions(2, FOUND))
    server.decide("t/1", "ann@example.org", FOUND)
    value = [{"start": each.start, "end": each.end, "label": each.label} for each in answer]
    if isinstance(server, LabelStudio):
        for task, each in zip(server.tasks[1:], [value], strict=True):
            task["annotations"][0]["result"] = [
                {"type": "labels", "value": {"start": one["start"], "end": one["end"], "labels": [one["label"]]}} for one in each
            ]
    else:
        server.records["t/1"]["responses"][0]["values"]["spans"]["value"] = value
    text = refused(server, COMPANIES)
    assert "ann@example.org" in text and ("task 2" in text or "record t/1" in text)
    assert message in text or "is outside the text" in text


def test_a_label_that_is_none_of_the_set(server: Server) -> None:
    push(server, LABELS, suggestions(2))
    server.decide("t/1", "bob@example.org", "sideways")
    assert "bob@example.org: 'sideways' is not one of the labels negative, neutral" in refused(server)


def test_the_offsets_of_a_marked_text_are_checked_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", KEY)
    with LabelStudio().running() as server:
        assert isinstance(server, LabelStudio)
        push(server, COMPANIES, suggestions(1, FOUND))
        server.decide("t/0", "ann@example.org", FOUND)
        server.tasks[0]["annotations"][0]["result"][0]["value"]["text"] = "O'Neil"
        assert "2:6 is 'AT&T' in the text, but \"O'Neil\" was marked" in refused(server, COMPANIES)


def test_a_personal_access_token_is_exchanged_and_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "head.body.signature")
    tokens: list[str] = []

    class Modern(LabelStudio):
        def authorized(self, headers: Any) -> bool:
            return bool(self.calls[-1][1] == "/api/token/refresh" or headers["Authorization"] == f"Bearer access{len(tokens)}")

        def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
            if path == "/api/token/refresh":
                assert body == {"refresh": "head.body.signature"}
                tokens.append(f"access{len(tokens) + 1}")
                return 200, {"access": tokens[-1]}
            return super().answer(method, path, query, body)

    with Modern().running() as server:
        assert isinstance(server, LabelStudio)
        items = suggestions(3)
        place = backend(settings(server))
        place.read(LABELS, {})
        tokens.append("another session's")  # the first one is no longer valid
        assert place.push(LABELS, items) == 3 and len(tokens) == 3

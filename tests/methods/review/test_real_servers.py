"""Reviews through a real Label Studio and Argilla: 300 suggestions, 100 decisions by two reviewers, SIGKILL in between."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from findistill.data.spans import locate
from findistill.errors import UserError
from findistill.methods.review.backends import Content, backend
from findistill.methods.review.decisions import Answer, Question, Suggestion
from tests.methods.review.real_servers import RealArgilla, RealLabelStudio
from tests.methods.review.servers import settings

pytestmark = pytest.mark.thorough  # installs separate environments: minutes

NAMES = ("AT&T", "O'Neil & Söhne", "Acme Corp.", "Łódź S.A.", "e\u0301tat", "日本銀行")
WORDS = ("rose", "fell 3%", "🚀", "👩‍🚀", "said", "beat", "<b>", '"up"')
LABELS = Question(("negative", 'R&D <"up">', "positive"), of_spans=False)
COMPANIES = Question(("company", "fund"), of_spans=True)
Real = RealLabelStudio | RealArgilla


@pytest.fixture(scope="module", params=[RealLabelStudio, RealArgilla])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    real: Real = request.param(tmp_path_factory.mktemp("server"))
    with real.running():
        yield real


@pytest.fixture(autouse=True)
def surroundings(server: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(server.variable, server.key)


def texts(number: int) -> Iterator[tuple[str, str]]:
    """Invented headlines with repeated names, emoji, combining characters and markup."""
    draw = random.Random(17)
    for n in range(number):
        yield f"news/{n}", " ".join([*draw.choices(WORDS, k=3), *draw.choices(NAMES, k=3), f"{n}", *draw.choices(WORDS, k=2)])


def an_answer(text: str, question: Question, draw: random.Random) -> Answer:
    if not question.of_spans:
        return draw.choice(question.labels)
    forms = draw.sample(NAMES, draw.choice((0, 2, 4)))
    return tuple(locate(text, forms, draw.choice(question.labels)).spans)


def suggestions(question: Question, number: int = 300) -> list[Suggestion]:
    draw = random.Random(1)
    items = []
    for rank, (text_id, text) in enumerate(texts(number)):
        answer = an_answer(text, question, draw)
        items.append(Suggestion(text_id, text, answer, rank / number, tuple(0.5 for _ in answer)))
    return items


@pytest.fixture
def killing(server: Real, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kill the server `after_s` after the n-th request to a path from now on; 0: before the request arrives."""
    plain = httpx.Client.request

    def kill_at(ending: str, number: int, after_s: float) -> None:
        calls = iter(range(1, 1000))

        def request(client: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
            if path.endswith(ending) and next(calls) == number:
                timer = threading.Timer(after_s, server.kill)
                timer.start()
                timer.join(None if after_s == 0 else 0)
            return plain(client, method, path, **content)

        monkeypatch.setattr(httpx.Client, "request", request)

    yield kill_at
    monkeypatch.setattr(httpx.Client, "request", plain)


def review(server: Real, project: str, question: Question, items: list[Suggestion]) -> tuple[Content, int]:
    place = backend(settings(server, project=project, reviewers=2))
    content = place.read(question, {each.id: each for each in items})
    return content, place.push(question, items)


@pytest.mark.parametrize("question", [COMPANIES, LABELS], ids=["spans", "labels"])
def test_a_round_trip_that_sigkill_cuts_twice(
    server: Real, question: Question, killing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, project = suggestions(question), f"trial {question.column}"
    imports, lists = ("/import", "/api/tasks") if isinstance(server, RealLabelStudio) else ("/bulk", "/records")
    killing(imports, 2, 0.01)
    with pytest.raises(UserError, match="cannot be reached"):
        review(server, project, question, items)
    monkeypatch.undo()
    surround(server, monkeypatch)
    server.start()
    content, pushed = review(server, project, question, items)
    assert len(content.texts) in (100, 200) and pushed == 300 - len(content.texts)  # complete batches, whatever the responses
    assert review(server, project, question, items)[1] == 0
    expected = [(each.id, server.expected_suggestion(each.text, each.answer)) for each in items]
    assert sorted(server.suggested(project)) == sorted(expected)

    draw = random.Random(2)
    answers: dict[tuple[str, str], Answer | None] = {}
    for each in items[:50]:
        for reviewer in server.reviewers:
            answer = each.answer if draw.random() < 0.6 else an_answer(each.text, question, draw)
            answers[each.id, reviewer] = None if draw.random() < 0.05 else answer
    assert len(answers) == 100
    server.decide(project, answers)

    killing(lists, 2, 0.0)
    with pytest.raises(UserError, match="cannot be reached"):
        review(server, project, question, items)
    monkeypatch.undo()
    surround(server, monkeypatch)
    server.start()
    content, pushed = review(server, project, question, items)
    assert pushed == 0 and content.texts == {each.id: each.text for each in items}
    assert {(each.id, each.reviewer): each.answer for each in content.decisions} == answers
    assert review(server, project, question, items)[0] == content
    if isinstance(server, RealLabelStudio):
        assert {each.seconds for each in content.decisions} == {2.5}


def surround(server: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(server.variable, server.key)


def test_a_wrong_key_is_refused(server: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.variable, "0000000000000000000000000000000000000000")
    with pytest.raises(UserError, match=rf"refuses the key in {server.variable} \(401\)"):
        backend(settings(server)).check()

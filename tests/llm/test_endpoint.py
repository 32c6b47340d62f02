import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from findistill.errors import UserError
from findistill.llm.endpoint import EndpointEngine
from findistill.llm.engine import Answer, Sampling, Task
from findistill.llm.prompts import Demonstration, Template

KEY = "sk-very-secret"
TEMPLATE = Template("Classify.", {"negative": "negative", "neutral": "neutral", "positive": "positive"})
Reply = tuple[int, dict]


def chat(contents: list[str]) -> Reply:
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        for i, content in enumerate(contents)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


def refusal(status: int, message: str = "no") -> Reply:
    return status, {"error": {"message": message, "type": "error"}}


class Server:
    """A loopback server that speaks the protocol; `behave` makes each reply from the request's body."""

    def __init__(self) -> None:
        self.behave: Callable[[dict], Reply] = sampling_server
        self.bodies: list[dict] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                status, reply = outer.behave(body)
                if self.headers["Authorization"] != f"Bearer {KEY}":
                    status, reply = refusal(401, f"bad key {self.headers['Authorization']}")
                with outer.lock:
                    outer.in_flight -= 1
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that was stopped hangs up in the middle of a call

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def asked(self) -> list[dict]:
        """The bodies of the calls that were not probes."""
        return [body for body in self.bodies if "digits" not in body["messages"][0]["content"]]


def sampling_server(body: dict) -> Reply:
    words = ["positive"] * 3 + ["neutral", "I cannot say"]
    return chat([random.choice(words) + " " * random.randrange(99) for _ in range(body.get("n", 1))])


def ignoring_n(body: dict) -> Reply:
    return sampling_server({**body, "n": 1})


def greedy(body: dict) -> Reply:
    return chat(["Sentiment: positive"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def ask(
    server: Server, tasks: int = 5, samples: int = 4, concurrency: int = 3, temperature: float = 0.5, **settings: object
) -> list[Answer]:
    engine = EndpointEngine("m", base_url=server.url, api_key_env="TEST_KEY", **{"max_retries": 1, **settings})  # type: ignore[arg-type]
    shown = (Demonstration("Sales fell.", "negative"),)
    made = [Task(f"t{i}", f"text {i}", shown, tuple(range(samples))) for i in range(tasks)]
    found = [a for batch in engine.answers(made, TEMPLATE, Sampling(temperature, 0, concurrency)) for a in batch]
    return sorted(found, key=lambda answer: (answer.id, answer.sample))


def test_choices_in_one_call(server: Server) -> None:
    answers = ask(server)
    assert [(a.id, a.sample) for a in answers] == [(f"t{i}", s) for i in range(5) for s in range(4)]
    assert len(server.asked()) == 5
    body = server.asked()[0]
    assert (body["n"], body["temperature"], body["max_tokens"], body["model"]) == (4, 0.5, 256, "m")
    assert body["messages"][1]["content"] == "Sales fell." and body["messages"][2]["content"] == "negative"
    assert all(a.label == TEMPLATE.parse(a.raw or "") and a.error is None for a in answers)
    assert sum(a.tokens_in for a in answers) == 5 * 7


def test_a_server_that_ignores_n_gets_one_call_a_sample(server: Server) -> None:
    server.behave = ignoring_n
    assert len(ask(server)) == 20
    assert len(server.asked()) == 20
    assert all("n" not in body for body in server.asked())


def test_choices_that_are_missing_are_asked_for_again(server: Server) -> None:
    server.behave = lambda body: sampling_server({**body, "n": min(body.get("n", 1), 3)})
    answers = ask(server)
    assert [(a.id, a.sample) for a in answers] == [(f"t{i}", s) for i in range(5) for s in range(4)]
    assert len(server.asked()) == 10


def test_calls_in_flight_are_bounded_and_do_not_wait_for_each_other(server: Server) -> None:
    slow = threading.Event()

    def behave(body: dict) -> Reply:
        if body["messages"][-1]["content"] == "text 0":
            slow.wait(10)  # until all others have been answered
        elif len(server.asked()) >= 30:
            slow.set()
        time.sleep(0.005)
        return sampling_server(body)

    server.behave = behave
    assert len(ask(server, tasks=30, samples=1, concurrency=4)) == 30
    assert slow.is_set()
    assert server.most_in_flight == 4


def test_refused_parameters_are_done_without(server: Server) -> None:
    def behave(body: dict) -> Reply:
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: use max_completion_tokens")
        return refusal(400, "n must be 1") if "n" in body else sampling_server(body)

    server.behave = behave
    assert all(a.error is None for a in ask(server))
    assert server.asked()[0]["max_completion_tokens"] == 256


def test_failed_calls_are_recorded_without_the_key(server: Server) -> None:
    def behave(body: dict) -> Reply:
        return refusal(400, f"filtered {KEY}") if body["messages"][-1]["content"] == "text 2" else sampling_server(body)

    server.behave = behave
    answers = ask(server)
    failed = [a for a in answers if a.error]
    assert {a.id for a in failed} == {"t2"} and len(failed) == 4
    assert "filtered ***" in (failed[0].error or "") and KEY not in str(answers)
    assert failed[0].label is None and failed[0].raw is None


def test_passing_trouble_is_retried(server: Server) -> None:
    seen: set[str] = set()

    def behave(body: dict) -> Reply:
        text = body["messages"][-1]["content"]
        if text == "text 1" and text not in seen:
            seen.add(text)
            return refusal(503)
        return sampling_server(body)

    server.behave = behave
    assert all(a.error is None for a in ask(server))


def test_a_server_that_fails_every_call_is_given_up(server: Server) -> None:
    server.behave = lambda body: sampling_server(body) if "digits" in body["messages"][0]["content"] else refusal(500)
    with pytest.raises(UserError, match="16 calls failed in a row, the last with: InternalServerError"):
        ask(server, tasks=50, max_retries=0)
    assert len(server.asked()) < 30


def test_greedy_answers_under_a_temperature_are_refused(server: Server) -> None:
    server.behave = greedy
    with pytest.raises(UserError, match=r"ignores annotate.temperature"):
        ask(server, tasks=25)
    assert len(ask(server, tasks=25, temperature=0.0)) == 100


def test_few_greedy_answers_are_passed_with_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.behave = greedy
    assert len(ask(server, tasks=5)) == 20
    assert "may ignore annotate.temperature" in caplog.text


def test_a_sure_model_that_samples_is_not_refused(server: Server) -> None:
    server.behave = lambda body: sampling_server(body) if "digits" in body["messages"][0]["content"] else greedy(body)
    assert len(ask(server, tasks=25)) == 100


def test_few_different_answers_clear_a_probe_that_looked_greedy(server: Server) -> None:
    server.behave = lambda body: greedy(body) if "digits" in body["messages"][0]["content"] else sampling_server(body)
    assert len(ask(server, tasks=25)) == 100


def test_a_wrong_key_model_or_address_is_the_users_mistake(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda body: refusal(404, "no such model")
    with pytest.raises(UserError, match=r"llm.model=m .*404"):
        ask(server)
    monkeypatch.setenv("TEST_KEY", "sk-wrong")
    with pytest.raises(UserError, match="TEST_KEY") as error:
        ask(server)
    assert "sk-wrong" not in str(error.value)
    server.url = "http://user:password@127.0.0.1:9/v1"
    with pytest.raises(UserError, match="cannot be reached") as error:
        ask(server)
    assert "password" not in str(error.value)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(UserError, match=r"llm.api_key_env=TEST_KEY"):
        ask(server)
    with pytest.raises(UserError, match=r"llm.model"):
        EndpointEngine("???", api_key_env="PATH")


def test_long_texts_are_cut_by_words(server: Server) -> None:
    engine = EndpointEngine("m", base_url=server.url, api_key_env="TEST_KEY")
    list(
        engine.answers(
            [Task("a", "one  two\nthree " * 99, (), (0,))],
            Template("C.", TEMPLATE.words, max_text_tokens=3),
            Sampling(0.5, 0, 1),
        )
    )
    assert server.asked()[0]["messages"][-1]["content"] == "one  two\nthree"


def test_closing_the_stream_ends_the_calls(server: Server) -> None:
    engine = EndpointEngine("m", base_url=server.url, api_key_env="TEST_KEY")
    stream = engine.answers([Task(f"t{i}", "text", (), (0,)) for i in range(500)], TEMPLATE, Sampling(0.5, 0, 2))
    next(stream)
    stream.close()
    assert "annotate" not in [thread.name for thread in threading.enumerate()]
    assert len(server.asked()) < 400

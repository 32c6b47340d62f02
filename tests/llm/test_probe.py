import json
import random

import pytest

from findistill.errors import UserError
from findistill.llm.chat import confidence
from findistill.llm.engine import Sampling
from tests.llm.calls import STEPS, TEMPLATE, ask, engine, requests
from tests.llm.servers import LoopbackServer, Reply, after_probes, chat, greedy, is_probe, refusal, sampling


def test_greedy_answers_under_a_temperature_are_refused(server: LoopbackServer) -> None:
    server.behave = greedy
    with pytest.raises(UserError, match=r"ignores annotate.temperature=0.5: .*\n.*llm.extra_body") as error:
        ask(server)
    assert len(str(error.value).splitlines()) == 2
    assert not server.requests and len(server.bodies) <= 6
    assert len(ask(server, temperature=0.0)) == 20


def test_copies_of_one_answer_are_no_samples(server: LoopbackServer) -> None:
    """Each call draws one answer and returns `n` copies of it."""
    server.behave = lambda body: chat([str(json.loads(sampling({}).body)["choices"][0]["message"]["content"])] * body.get("n", 1))
    ask(server)
    assert all("n" not in body for body in server.requests)


def test_a_sure_model_that_samples_is_not_refused(server: LoopbackServer) -> None:
    server.behave = after_probes(greedy)
    assert {a.label for a in ask(server)} == {"positive"}


def test_what_is_honoured_is_said_in_one_line(server: LoopbackServer, log: pytest.LogCaptureFixture) -> None:
    llm = engine(server)
    assert llm.prepare(TEMPLATE, Sampling(0.5, 0)) == TEMPLATE
    assert "n yes, schema no, log-probabilities no, sampling yes" in log.text and len(log.records) == 1
    assert llm.capabilities is not None and llm.capabilities.several
    calls = len(server.bodies)
    list(llm.responses(requests(1, 1), TEMPLATE, Sampling(0.5, 0)))
    assert len(server.bodies) == calls + 1  # the server is not probed again


@pytest.mark.parametrize("status", [400, 422])
def test_refused_parameters_are_done_without(server: LoopbackServer, log: pytest.LogCaptureFixture, status: int) -> None:
    def behave(body: dict) -> Reply:
        if "max_tokens" in body:
            return refusal(status, "Unsupported parameter: use max_completion_tokens")
        for name in ("seed", "temperature", "logprobs", "response_format"):
            if name in body:
                return refusal(status, f"'{name}' is not allowed")
        return refusal(status, "no") if "n" in body else sampling(body)

    server.behave = behave
    assert not any(a.error for a in ask(server))
    assert server.requests[0].keys() == {"model", "messages", "max_completion_tokens"}
    assert "calls omit logprobs, max_tokens, n, response_format, seed, temperature, which it refuses" in log.text


def test_a_refusal_that_nothing_mends_is_the_users(server: LoopbackServer) -> None:
    server.behave = lambda body: refusal(400, "top_k is unknown")
    with pytest.raises(UserError, match=r"llm.model=m .* refuses the call: 400: top_k is unknown"):
        ask(server, extra_body={"top_k": 3, "n": 1})


def test_fields_of_the_servers_own(server: LoopbackServer) -> None:
    ask(server, extra_body={"top_p": 0.9, "chat_template_kwargs": {"thinking": False}, "stop": ["###"]})
    assert all(body["top_p"] == 0.9 and body["chat_template_kwargs"] == {"thinking": False} for body in server.bodies)


def with_schema(body: dict) -> Reply:
    if "response_format" not in body:
        return sampling(body)
    words = body["response_format"]["json_schema"]["schema"]["properties"]["sentiment"]["enum"]
    return chat(
        [json.dumps({"opinion": f"{random.random()}", "sentiment": random.choice(words)}) for _ in range(body.get("n", 1))]
    )


def test_answers_by_schema_where_it_is_honoured(server: LoopbackServer) -> None:
    server.behave = with_schema
    answers = ask(server, template=STEPS, structured="auto")
    assert all(a.label and a.rationale and json.loads(a.raw or "") for a in answers)
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == STEPS.schema
    assert "JSON object" in server.requests[0]["messages"][0]["content"]
    assert engine(server, structured="always").prepare(STEPS, Sampling(0.5, 0)).structured
    assert not engine(server, structured="never").prepare(STEPS, Sampling(0.5, 0)).structured


@pytest.mark.parametrize(
    "content",
    ["A share is a part.", '{"sentiment": "positive"}', '{"opinion": "x", "sentiment": "good"}', '{"opinion": "x", "sen', "[]"],
)
def test_a_schema_that_is_not_kept(server: LoopbackServer, content: str) -> None:
    server.behave = lambda body: chat([content]) if "response_format" in body else sampling(body)
    assert not any(a.error for a in ask(server, template=STEPS))
    assert "response_format" not in server.requests[0]
    with pytest.raises(UserError, match=r"llm.structured=always: the server does not follow"):
        engine(server, structured="always").prepare(STEPS, Sampling(0.5, 0))


def test_a_server_that_breaks_on_a_schema(server: LoopbackServer) -> None:
    server.behave = lambda body: refusal(500) if "response_format" in body else sampling(body)
    assert not any(a.error for a in ask(server, max_retries=1))


def test_confidence_from_log_probabilities(server: LoopbackServer) -> None:
    tokens = [("not", -1.0), (" positive", -9.0), ("\nSent", -0.5), ("iment:", 0.0), (" posi", -0.1), ("tive", -0.2), (".", -3.0)]
    content = {"content": [{"token": token, "logprob": value} for token, value in tokens]}
    server.behave = lambda body: sampling(body) if is_probe(body) and not body.get("logprobs") else chat(
        ["".join(t for t, _ in tokens) + " " * random.randrange(999)], logprobs=content if body.get("logprobs") else None
    )  # fmt: skip
    answers = ask(server, template=STEPS)
    assert [a.confidence for a in answers] == [pytest.approx(0.7408, abs=1e-4)] * 20
    assert confidence([("İ", -1.0), ("POSITIVE", -2.0)], "positive") == pytest.approx(0.1353, abs=1e-4)
    assert confidence([("neutral", -1.0)], "positive") is None


@pytest.mark.parametrize("logprobs", [None, [], {"content": None}, {"content": [{"token": "a"}]}, {"content": ["a"]}])
def test_log_probabilities_that_cannot_be_read(server: LoopbackServer, logprobs: object) -> None:
    server.behave = lambda body: chat([f"positive {random.random()}"] * body.get("n", 1), logprobs=logprobs)
    assert {a.confidence for a in ask(server)} == {None}
    assert "logprobs" not in server.requests[0]


def test_empty_answers_are_not_called_greedy(server: LoopbackServer) -> None:
    server.behave = lambda body: chat([None])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"returns no answer within llm.max_tokens=256"):
        ask(server)

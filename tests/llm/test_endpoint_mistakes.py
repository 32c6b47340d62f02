import json
import logging
import random

import pytest

from findistill.errors import UserError
from findistill.llm.config import address_fault
from findistill.llm.endpoint import EndpointEngine
from findistill.llm.engine import Sampling
from tests.llm.calls import TEMPLATE, ask, engine
from tests.llm.servers import KEY, LoopbackServer, Reply, after_probes, refusal, sampling


def test_a_wrong_key_model_or_address_is_the_users_mistake(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behave = lambda body: refusal(404, "no such model")
    with pytest.raises(UserError, match=r"404: no such model\)\nCheck llm.model"):
        ask(server)
    server.behave = lambda body: Reply(301, headers={"Location": "https://elsewhere/v1/chat/completions"})
    with pytest.raises(UserError, match=r"has moved \(301\) to https://elsewhere"):
        ask(server)
    server.behave = lambda body: refusal(429, "insufficient_quota")
    with pytest.raises(UserError, match=r"credit is used up"):
        ask(server)
    spent = {"message": "You exceeded your current quota, please check your plan and billing details.", "param": None}
    body_of_openai = {"error": {**spent, "type": "insufficient_quota", "code": "insufficient_quota"}}
    server.behave = lambda body: Reply(429, json.dumps(body_of_openai))
    with pytest.raises(UserError, match=r"credit is used up \(429: You exceeded your current quota"):
        ask(server)
    key, server.key = server.key, ""
    for status, reason in ((401, "401"), (403, r"403: who are you\?")):
        server.behave = lambda body, status=status: refusal(status, "who are you?")
        with pytest.raises(UserError, match=rf"requires a key \({reason}\): .* such as llm.api_key_env=LLM_API_KEY"):
            ask(server, api_key_env=None)
    server.key = key
    monkeypatch.setenv("TEST_KEY", "sk-wrong")
    with pytest.raises(UserError, match="TEST_KEY") as error:
        ask(server)
    assert "sk-wrong" not in str(error.value)
    monkeypatch.setenv("TEST_KEY", "sk-wrong\nsecond")
    with pytest.raises(UserError, match="is not a valid key") as error:
        ask(server)
    assert "second" not in str(error.value)
    monkeypatch.setenv("TEST_KEY", KEY + "\n")  # as read from a file with `cat`
    server.behave = sampling
    ask(server)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(UserError, match=r"llm.api_key_env=TEST_KEY"):
        ask(server)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_an_address_that_cannot_be_reached(server: LoopbackServer, address: str) -> None:
    with pytest.raises(UserError, match=r"llm.base_url=http://.* cannot be reached"):
        ask(server, base_url=address)


@pytest.mark.parametrize(
    "address", ["http://user:hunter2@127.0.0.1:9/v1", "http://hunter2@127.0.0.1:9/v1", "http://127.0.0.1:9/v1?api_key=hunter2"]
)
def test_a_secret_in_an_address_is_refused_in_favour_of_a_variable(server: LoopbackServer, address: str) -> None:
    with pytest.raises(UserError, match=r"llm.base_url=http://127.0.0.1:9/v1 llm.api_key_env=LLM_API_KEY$") as error:
        ask(server, base_url=address)
    assert "hunter2" not in str(error.value) and len(str(error.value).splitlines()) == 1


def test_the_remedy_for_an_address_with_a_query_is_quoted_for_hydra() -> None:
    fault = address_fault("https://user:hunter2@host/d?api-version=1&key=hunter2")
    assert (
        fault
        and "'llm.base_url=\"https://host/d?api-version=1\"' llm.api_key_env=LLM_API_KEY" in fault
        and "hunter2" not in fault
    )


def test_a_server_without_tls(server: LoopbackServer) -> None:
    with pytest.raises(UserError, match=r"llm.base_url=https://.* cannot be called: .*SSL"):
        ask(server, base_url=server.url.replace("http", "https"))


def test_a_proxy_of_the_surroundings_is_used(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    assert len(ask(server, base_url="http://no-such-host.invalid/v1")) == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "???"}, "llm.model is not set"),
        ({"base_url": "127.0.0.1:8000/v1"}, "llm.base_url=127.0.0.1:8000/v1: give the complete address"),
        ({"base_url": "http://127.0.0.1:99999/v1"}, "llm.base_url=http://127.0.0.1:99999/v1"),
        ({"base_url": "user:password@host/v1"}, r"llm.base_url=\*\*\*@host/v1: give the complete .* llm.base_url=http://host/v1"),
        ({"extra_body": "top_p"}, "llm.extra_body=top_p"),
    ],
)
def test_settings_that_cannot_be(server: LoopbackServer, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EndpointEngine(**{"model": "m", "api_key_env": "TEST_KEY", **settings}).prepare(TEMPLATE, Sampling(0.5, 0))


def test_the_key_is_in_no_log_and_no_answer(server: LoopbackServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wild = [
        refusal(500, f"key {KEY}"),
        Reply(body=f"<p>{KEY}</p>"),
        refusal(429, KEY),
        Reply(body=f'{{"choices": [], "error": "{KEY}"}}'),
    ]
    server.behave = after_probes(lambda body: random.choice([*wild, sampling(body)]))
    answers = ask(server, tasks=30, max_retries=1)
    assert any(a.error for a in answers)
    assert KEY not in str(answers) and KEY not in caplog.text and KEY not in str(vars(engine(server)))

"""An unreachable hub costs a second, not all retries of its clients."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from huggingface_hub import constants

from findistill.core import connection
from findistill.data import hugging_face
from findistill.errors import UserError
from findistill.llm.config import EndpointLLM
from findistill.llm.estimate import token_counter
from findistill.models.causal_lm import find_adapter
from findistill.models.encoders import open_trained
from findistill.models.weights import locate

DEAD = "http://127.0.0.1:9"


class NotFound(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def alive() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), NotFound)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without offline or proxy settings, and a dead hub."""
    for name in connection.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", DEAD)
    monkeypatch.setattr(hugging_face.datasets.config, "HF_HUB_OFFLINE", False)
    connection._hub_reachable.cache_clear()
    return monkeypatch


def test_a_model_of_a_hub_out_of_reach(online: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(UserError, match=r"the model no/such cannot be loaded: .*\n.*a hub id that this machine can reach"):
            open_trained("no/such")
    assert time.monotonic() - started < 3
    assert [record.getMessage() for record in caplog.records if record.name == connection.__name__] == [
        "cannot reach 127.0.0.1: only files that are already downloaded can be used"
    ]


def test_an_adapter_and_a_tokenizer_to_count_with(online: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"llm.adapter=no/such has no LoRA adapter"):
        find_adapter("no/such")
    llm = EndpointLLM(name="m", model="m", tokenizer="no/such")
    with pytest.raises(UserError, match=r"llm.tokenizer=no/such: the tokenizer for counting tokens cannot be loaded"):
        token_counter(llm)
    assert time.monotonic() - started < 3


def test_a_data_set_of_a_hub_out_of_reach(online: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="no/such"):
        hugging_face.load_from_hub("no/such", None, {})
    assert time.monotonic() - started < 3


def test_a_hub_in_reach_is_asked(online: pytest.MonkeyPatch, alive: str) -> None:
    online.setattr(constants, "ENDPOINT", alive)
    assert not connection.hub_offline() and not constants.HF_HUB_OFFLINE
    online.setattr(constants, "ENDPOINT", DEAD)
    assert connection.hub_offline()
    online.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # the proxy may reach it
    connection._hub_reachable.cache_clear()
    assert not connection.hub_offline()


@pytest.mark.parametrize("model", ["embedded:minilm_l6", "runs/study/no-such-job/model", "."])
def test_what_is_on_this_machine_needs_no_hub(model: str, online: pytest.MonkeyPatch) -> None:
    online.setattr(connection, "reachable", lambda _: pytest.fail("the hub was tried"))
    locate(model)

"""The endpoint engine against a third-party server: `transformers serve` with SmolLM2, on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm.endpoint import EndpointEngine
from findistill.llm.engine import Request, Sampling
from findistill.llm.prompts import Template
from findistill.models.weights import locate

pytestmark = pytest.mark.slow

TEXTS = 16
SAMPLES = 4
WORDS = LabelSet(("negative", "neutral", "positive")).words("sentiment")
# A short version of conf/prompt/cot.yaml: the model is small and the processor slow.
COT = Template("Classify the sentiment of the financial news.", WORDS, steps=("Opinion:",), step_hints=("three words",))
SAMPLES_AT_THE_SERVER = {"generation_config": '{"do_sample": true}'}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's address and the model's name."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    model = locate("embedded:smollm2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    log_file = tmp_path_factory.mktemp("server") / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu"], stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log_file)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen, log_file: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log_file.read_text()[-3000:]}")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_KEY", "none")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def engine(server: tuple[str, str], **settings: object) -> EndpointEngine:
    address, model = server
    options = {"base_url": address, "api_key_env": "LOCAL_KEY", "timeout_s": 300.0, "max_tokens": 16, **settings}
    return EndpointEngine(model=model, **options)  # type: ignore[arg-type]


def test_a_model_is_sampled_through_a_real_server(server: tuple[str, str]) -> None:
    tasks = [
        Request(f"t{i}", f"The company said that profit {['rose', 'fell'][i % 2]} by {i} percent.", (), tuple(range(SAMPLES)))
        for i in range(TEXTS)
    ]
    llm = engine(server, extra_body=SAMPLES_AT_THE_SERVER)
    sampling = Sampling(temperature=1.0, seed=0, concurrency=4, retries=0)
    template = llm.prepare(COT, sampling)
    assert llm.capabilities is not None and llm.capabilities.sampling
    # The server silently ignores all three.
    assert not llm.capabilities.several and not llm.capabilities.schema and not llm.capabilities.log_probabilities
    answers = [answer for batch in llm.responses(tasks, template, sampling) for answer in batch]
    assert sorted((a.id, a.sample) for a in answers) == sorted((t.id, s) for t in tasks for s in t.samples)
    assert not [a.error for a in answers if a.error]
    assert all(a.raw and a.tokens_in > 20 and 0 < a.tokens_out <= 16 for a in answers)
    raw_answers = {t.id: {a.raw for a in answers if a.id == t.id} for t in tasks}
    assert sum(len(each) > 1 for each in raw_answers.values()) >= TEXTS - 1


def test_a_real_server_that_does_not_sample_is_refused(server: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"ignores annotate.temperature=1"):
        engine(server, extra_body={"generation_config": '{"do_sample": false}'}).prepare(COT, Sampling(1.0, 0))

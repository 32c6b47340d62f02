"""Every server preset, through the application: a few texts annotated by an imitation of that server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from findistill.config.validate import validate
from findistill.errors import UserError
from tests.conftest import ROOT
from tests.fixtures.composing import composed
from tests.fixtures.jobs import run_job
from tests.llm import conftest as fixtures
from tests.llm.servers import KEY, LoopbackServer, is_probe
from tests.strangers import imitations
from tests.strangers.imitations import SERVERS, Behaviour, azure_filter, error, has_system

server = fixtures.server


@dataclass(frozen=True)
class Preset:
    """A preset's imitation, and what requests after the probes must contain or lack."""

    behave: Behaviour
    model: str
    key: str = ""  # the header that carries the key, if one is sent
    holds: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    system: bool = True
    failed: int = 0  # texts that the server refuses
    address: str = "/v1"
    overrides: tuple[str, ...] = ()


def azure(body: dict) -> imitations.Reply:
    refused = not is_probe(body) and body["messages"][-1]["content"] == "Sales fell, again"
    return error(400, azure_filter("")) if refused else imitations.openai(body)


def vllm(body: dict) -> imitations.Reply:
    if "logprobs" in body:
        return error(400, imitations.vllm_error("logprobs are not supported: unexpected keyword argument 'logprobs'"))
    return SERVERS["reasoning in its own field"](body)


def mistral(body: dict) -> imitations.Reply:
    refused = next((name for name in ("logprobs", "seed") if name in body), None)
    return error(422, imitations.of_pydantic(refused)) if refused else SERVERS["Mistral, thinking in parts"](body)


OPENAI = {"key": "Authorization", "holds": ("n", "response_format", "logprobs", "seed", "temperature", "max_tokens")}
LLAMA = "meta-llama/Llama-3.1-{}-Instruct"
PRESETS = {
    "gpt35_turbo": Preset(imitations.openai, "gpt-3.5-turbo", **OPENAI),
    "gpt4o": Preset(imitations.openai, "gpt-4o", **OPENAI),
    "gpt5": Preset(
        imitations.o1_mini, "gpt-5-mini", "Authorization", ("max_completion_tokens", "reasoning_effort"),
        ("max_tokens", "temperature", "logprobs"), system=False,
    ),
    "azure": Preset(
        azure, "gpt-4o", "api-key", ("n", "logprobs"), failed=1, overrides=("annotate.max_failed=0.5",),
        address="/openai/deployments/mine?api-version=2024-10-21",
    ),
    "vllm_server": Preset(vllm, LLAMA.format("8B"), lacks=("logprobs",)),
    "llama31_8b": Preset(vllm, LLAMA.format("8B"), lacks=("logprobs",)),
    "llama31_70b": Preset(vllm, LLAMA.format("70B"), lacks=("logprobs",)),
    "gemma": Preset(SERVERS["vLLM, Gemma"], "google/gemma-2-9b-it", system=False),
    "tgi": Preset(SERVERS["TGI, template"], "tgi", system=False),
    "ollama": Preset(imitations.ollama, "llama3.1", lacks=("n",)),
    "llama_cpp": Preset(imitations.llama_cpp, "llama_cpp", lacks=("n",), system=False),
    "lm_studio": Preset(imitations.lm_studio, "lm_studio", lacks=("response_format", "logprobs")),
    "mistral": Preset(mistral, "mistral-small-latest", "Authorization", lacks=("logprobs", "seed")),
    "endpoint": Preset(
        SERVERS["plain text"], "anything", "Authorization", lacks=("n", "temperature"), overrides=("llm.model=anything",)
    ),
}  # fmt: skip
TEXTS = ["Sales rose", "Sales fell, again", "The board meets", "Orders doubled", "It opens a branch"]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[list[str]]:
    pd.DataFrame({"headline": TEXTS}).to_csv(tmp_path / "own.csv", index=False)
    shots = ["shots.source='demo rows=300'", "shots.k=2", "shots.selection=random"]  # a probe is one message, a prompt is several
    yield ["data=csv", f"data.path={tmp_path / 'own.csv'}", "data.text_column=headline", "annotate.samples=3", *shots]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_annotates(
    name: str, data: list[str], server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = PRESETS[name]
    server.behave = preset.behave
    server.key_header, server.key = preset.key, {"": "", "api-key": KEY}.get(preset.key, f"Bearer {KEY}")
    address = server.url.removesuffix("/v1") + preset.address
    address = f'"{address}"' if "=" in address else address
    config = composed("stage=annotate", f"llm={name}", f"llm.base_url={address}", *data, *preset.overrides)
    assert config.llm.model == preset.model
    if config.llm.api_key_env:
        monkeypatch.setenv(config.llm.api_key_env, KEY)
    validate(config)
    job = run_job(config, tmp_path)
    votes = pd.read_parquet(job.parents["annotations"] / "annotations.parquet")
    assert votes["label"].isin(["negative", "neutral", "positive"]).sum() == len(TEXTS) - preset.failed
    assert sorted(votes["n_valid"]) == [0] * preset.failed + [3] * (len(TEXTS) - preset.failed)
    assert votes["confidence"].notna().any() == ("logprobs" in preset.holds)
    bodies = server.requests if preset.system else [body for body in server.bodies if not has_system(body)]
    accepted = bodies[-1]
    assert accepted["model"] == preset.model and set(preset.holds) <= set(accepted) and not set(preset.lacks) & set(accepted)
    # The first requests are concurrent, so some with a system message may arrive after the first without one.
    assert any(map(has_system, server.bodies[-3:])) if preset.system else len(bodies) >= len(TEXTS)
    path, headers = server.heads[-1]
    assert path == preset.address.replace("?", "/chat/completions?") if "?" in preset.address else path == "/v1/chat/completions"
    assert ({"Authorization", "api-key"} & set(headers)) == ({preset.key} - {""})


def test_every_preset_of_a_server_is_tried() -> None:
    presets = {path.stem: path.read_text("utf-8") for path in (ROOT / "conf" / "llm").glob("*.yaml")}
    servers = {name: text for name, text in presets.items() if "EndpointEngine" in text}
    assert set(PRESETS) == set(servers)
    for name, text in servers.items():  # a local server needs no key by default
        assert ("//localhost" in text) == ("api_key_env: null" in text), name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["llm=ollama", "llm.model=llama9"],
            ["cannot find the model", 'model "llama9" not found, try pulling it first', "llm.model"],
        ),
        (["llm=azure"], ["llm.base_url is not set", "openai.azure.com/openai/deployments/"]),
    ],
)
def test_what_is_missing_is_said(
    overrides: list[str], words: list[str], data: list[str], server: LoopbackServer, tmp_path: Path
) -> None:
    server.behave, server.key = imitations.ollama, ""
    address = [] if "llm=azure" in overrides else [f"llm.base_url={server.url}"]
    config = composed("stage=annotate", *overrides, *address, *data)
    with pytest.raises(UserError) as failure:
        validate(config)
        run_job(config, tmp_path)
    assert all(word in str(failure.value) for word in words) and str(failure.value).count("\n") < 2

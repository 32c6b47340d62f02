"""`export.push_to_hub`: what is previewed, what is uploaded to an imitation of the hub, and what never leaves this machine."""

import os
import pickle
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from findistill.core import connection
from findistill.errors import UserError
from findistill.methods.export.publish import publish
from findistill.methods.finetune.card import write_classifier_card
from findistill.report.licences import Provenance, Source
from tests.conftest import Command
from tests.fixtures.composing import composed
from tests.methods.export.hub_server import TOKEN, Hub, Repository

LEARNT = Provenance([Source("texts", "demo", "CC BY-NC 4.0")])
METRICS = {"test/accuracy": 0.8, "test/accuracy_lo": 0.7, "test/accuracy_hi": 0.9, "test/macro_f1": 0.75, "test/n": 60.0}
FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # Xet storage has its own protocol
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between the client's own retries
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in connection.PROXIES:
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The run folder of a model export, with only what publishing reads."""
    folder = tmp_path / "job" / "model"
    folder.mkdir(parents=True)
    write_classifier_card(folder, composed("stage=teacher", "data=demo"), ("negative", "positive"), 60, LEARNT, METRICS)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder.parent


def push(job: Path, *overrides: str, repo: str = "me/moon") -> None:
    words = [
        "stage=export",
        "evaluate.model=runs/moon/latest-student",
        "export.format=torch",
        f"export.push_to_hub={repo}",
        *overrides,
    ]
    publish(composed("data=demo", *words), job, words)


def test_the_first_command_shows_what_the_second_uploads(hub: Hub, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push(job)
    printed = capsys.readouterr().out
    assert hub.calls == [] and f"would upload 4 files, 0.3 MB, to {hub.url}/me/moon, a private model:" in printed
    assert all(name in printed for name in FILES) and "model.safetensors 0.3 MB" in " ".join(printed.split())
    assert "licence: cc-by-nc-4.0, as its card says\nwarning: no commercial use" in printed
    assert printed.splitlines()[-1] == (
        "  findistill stage=export evaluate.model=runs/moon/latest-student export.format=torch export.push_to_hub=me/moon "
        "export.dry_run=false"
    )
    push(job, "export.private=false")
    assert "a PUBLIC model" in capsys.readouterr().out and hub.calls == []


def test_an_upload_is_one_commit_to_a_private_repository(hub: Hub, job: Path) -> None:
    push(job, "export.dry_run=false")
    repository = hub.repositories["models/me/moon"]
    assert repository.private and repository.commits == 1 and repository.files.keys() == {*FILES, ".gitattributes"}
    for name in FILES - {"README.md"}:
        assert repository.files[name] == (job / "model" / name).read_bytes()
    assert b'model="me/moon"' in repository.files["README.md"] and b"PATH_OF" not in repository.files["README.md"]
    assert TOKEN not in "".join(path.read_text() for path in job.rglob("*.json"))

    push(job, "export.dry_run=false")
    assert repository.commits == 1  # nothing has changed
    (job / "model" / "config.json").write_text('{"model_type": "roberta"}')
    (job / "model" / "tokenizer.json").unlink()
    push(job, "export.dry_run=false")
    assert repository.commits == 2 and repository.files.keys() == {*FILES, ".gitattributes"} - {"tokenizer.json"}


@pytest.mark.parametrize("moment", ["/lfs/", "/commit/", "/preupload/", "/objects/batch"])
def test_a_hub_that_dies_half_way_loses_nothing(moment: str, hub: Hub, job: Path) -> None:
    hub.dies_at = moment
    with pytest.raises(UserError, match=r"the upload was interrupted .*\. Run the same command to resume"):
        push(job, "export.dry_run=false")
    repository = hub.repositories["models/me/moon"]
    assert repository.commits == 0 and repository.files.keys() == {".gitattributes"}
    hub.dies_at, hub.dead = "", False
    sent_before = len(hub.large)
    push(job, "export.dry_run=false")
    assert repository.commits == 1 and repository.files.keys() == {*FILES, ".gitattributes"}
    assert len(hub.large) == 1 and sent_before == (1 if moment == "/commit/" else 0)


def test_a_hub_that_dies_behind_the_commit_has_it_once(hub: Hub, job: Path) -> None:
    hub.dies_at, hub.hears_the_last = "/commit/", True
    with pytest.raises(UserError, match="the upload was interrupted"):
        push(job, "export.dry_run=false")
    repository = hub.repositories["models/me/moon"]
    hub.dies_at, hub.dead = "", False
    push(job, "export.dry_run=false")
    assert repository.commits == 1 and repository.files.keys() == {*FILES, ".gitattributes"}


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        ({"/repos/create": 401}, "the hub rejected the token; run `hf auth login`"),
        ({"/repos/create": 403, "/api/models/": 404}, "the token has no write access to me;"),
        ({"/commit/": 403}, "the token has no write access to me;"),
        ({"/validate-yaml": 400}, "rejected by the hub: Invalid metadata in README.md"),
        ({"/commit/": 500}, "the hub responded with 500: .*Nothing was committed. Run the same command to resume"),
        ({"/commit/": 412}, "the repository was modified during the upload"),
    ],
)
def test_what_the_hub_refuses_is_one_line(refuses: dict[str, int], message: str, hub: Hub, job: Path) -> None:
    hub.refuses = refuses
    with pytest.raises(UserError, match=f"(?i)export.push_to_hub=me/moon: .*{message}") as error:
        push(job, "export.dry_run=false")
    assert TOKEN not in str(error.value) and len(str(error.value).splitlines()) <= 2


def test_a_name_that_is_taken_or_public(hub: Hub, job: Path) -> None:
    hub.repositories["models/me/moon"] = Repository(private=True, files={"weights.bin": b"theirs"})
    with pytest.raises(UserError, match="the name is taken: that model has 1 files that findistill did not upload"):
        push(job, "export.dry_run=false")
    hub.repositories["models/me/moon"] = Repository(private=False)
    with pytest.raises(UserError, match=r"exists and is public, so the files would be public too\.\nAdd export\.private=false"):
        push(job, "export.dry_run=false")
    assert hub.repositories["models/me/moon"].commits == 0
    push(job, "export.dry_run=false", "export.private=false")
    assert hub.repositories["models/me/moon"].commits == 1


def test_without_a_token_or_a_connection(hub: Hub, job: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="the hub rejected the token"):
        push(job, "export.dry_run=false")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ cannot be reached; nothing has been uploaded"):
        push(job, "export.dry_run=false")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push(job, "export.dry_run=false")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no hub token; run `hf auth login` once, or set the variable HF_TOKEN"):
        push(job, "export.dry_run=false")


def write_secret(folder: Path) -> None:
    (folder / "notes.txt").write_text("login with sk-abcdefghijklmnopqrstuvwxyz")


def write_key_of_wandb(folder: Path) -> None:
    (folder / "settings.json").write_text('{"login": "wandb_v1_abcdefghijklmnopqrst_0123"}')


def write_password_of_netrc(folder: Path) -> None:
    (folder / "settings.json").write_text('{"login": "0123456789abcdef0123456789abcdef01234567"}')


def write_value_of_the_environment(folder: Path) -> None:
    (folder / "config.json").write_text('{"password": "a phrase of mine"}')


def write_pickle(folder: Path) -> None:
    (folder / "training_args.data").write_bytes(pickle.dumps({"a": 1}))


def write_objects(folder: Path) -> None:
    np.save(folder / "texts.npy", np.array(["Profit rose"], dtype=object))


def write_weights_as_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")


def write_rows(folder: Path) -> None:
    pd.DataFrame({"text": ["Profit rose"]}).to_parquet(folder / "train.parquet")


def write_link(folder: Path) -> None:
    (folder / "vocab.txt").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (write_secret, "notes.txt contains a secret .it looks like a key"),
        (write_key_of_wandb, "settings.json contains a secret .it looks like a key"),
        (write_password_of_netrc, "settings.json contains a secret .the value of api.wandb.ai in ~/.netrc"),
        (write_value_of_the_environment, "config.json contains a secret .the value of MY_API_KEY"),
        (write_pickle, "training_args.data is a pickle"),
        (write_objects, "texts.npy is a pickle"),
        (write_weights_as_pickle, "pytorch_model.bin is a pickle"),
        (write_rows, "train.parquet contains rows of a data set"),
        (write_link, "vocab.txt is a link to a file outside the folder"),
    ],
)
def test_what_never_leaves(
    spoil: Any, why: str, hub: Hub, job: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("MY_API_KEY", "a phrase of mine")
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    (home / ".netrc").write_text("machine api.wandb.ai login user password 0123456789abcdef0123456789abcdef01234567\n")
    (home / ".netrc").chmod(0o600)
    spoil(job / "model")
    for words in ((), ("export.dry_run=false",)):
        with pytest.raises(UserError, match=f"export.push_to_hub=me/moon: nothing was uploaded: {why}") as error:
            push(job, *words)
        assert "a phrase of mine" not in str(error.value) and "sk-abc" not in str(error.value)
    assert hub.calls == []


def test_a_card_that_was_spoilt_by_hand(hub: Hub, job: Path) -> None:
    card = job / "model" / "README.md"
    card.write_text("---\nlicense: [mit\n---\n# Mine\n")
    with pytest.raises(UserError, match=r"README\.md: its header cannot be read"):
        push(job)
    card.unlink()
    with pytest.raises(UserError, match=r"README\.md: no such file, and nothing is published without a card"):
        push(job)


def test_the_token_of_an_error_is_masked(hub: Hub, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError(f"no way with {TOKEN}")

    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", refuse)
    with pytest.raises(UserError, match=r"the upload was interrupted \(no way with \*\*\*\)"):
        push(job, "export.dry_run=false")


@pytest.mark.slow
def test_the_printed_line_uploads_what_the_first_command_showed(hub: Hub, job: Path, findistill: Command) -> None:
    words = [
        "stage=export",
        f"evaluate.model={job}",
        "export.format=torch",
        "export.push_to_hub=me/moon",
        "logger=none",
        "study=s",
    ]
    refusal = findistill("-m", *words)
    assert refusal.returncode == 2 and "export.push_to_hub only works for a single job: run it without -m" in refusal.stderr
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:  # a preloaded process has already read its environment
        command = [sys.executable, "-m", "findistill", *arguments]
        return subprocess.run(command, cwd=job.parent, env=environment, capture_output=True, text=True, timeout=200)

    preview = run(*words)
    assert preview.returncode == 0 and hub.calls == [], preview.stderr
    line = shlex.split(preview.stdout.splitlines()[-1])
    assert line[0] == "findistill"
    result = run(*line[1:])
    assert result.returncode == 0 and "already done" in result.stderr, result.stderr
    assert f"uploaded 4 files: {hub.url}/me/moon (private)" in result.stderr
    assert hub.repositories["models/me/moon"].commits == 1 and TOKEN not in result.stderr + result.stdout + preview.stdout

"""A study file received from somebody else: attacks are refused in one line, before anything runs or is written."""

from pathlib import Path

import pytest

from tests.faults.conftest import Application

# Study files with the known attacks, nested or not, and those through Hydra's own settings.
STUDIES = {
    "shell": "llm: {_target_: torch.distributed.run.main}",
    "shell in data": "data: {_target_: torch.utils.collect_env.run}",
    "pickle": "llm: {_target_: torch.load}",
    "remote code": "llm: {_target_: transformers.AutoModel.from_pretrained}",
    "file write": "data: {_target_: findistill.core.files.write_whole}",
    "copy": "data: {_target_: findistill.core.store.shutil.copy}",
    "download": "defaults: [override /llm: gpt4o]\nllm: {extra_body: {x: [{_target_: torch.hub.download_url_to_file, url: file:///x}]}}",
    "nested": "defaults: [override /llm: gpt4o]\nllm: {extra_body: {_target_: torch.load, f: bad.pt}}",
    "callback": "hydra: {callbacks: {x: {_target_: os.system, command: touch ran}}}",
    "launcher": "hydra: {launcher: {_target_: os.system}}",
    "logging": "hydra: {job_logging: {version: 1, root: {handlers: [x]}, handlers: {x: {(): os.mkdir, path: ran}}}}",
    "environment": "hydra: {job: {env_set: {FINDISTILL_ALLOW: os}}}",
    "secret": "prompt: {instruction: 'A ${oc.env:HOME}'}",
}


@pytest.mark.parametrize("way", STUDIES)
@pytest.mark.parametrize("sweep", [False, True])
def test_a_study_file_runs_no_code(
    way: str,
    sweep: bool,
    application: Application,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "shared.yaml").write_text(f"# @package _global_\n{STUDIES[way]}\n")
    monkeypatch.setenv("FINDISTILL_CONF", str(tmp_path / "conf"))
    arguments = ["-m", "experiment=shared,demo"] if sweep else ["experiment=shared"]
    outcome = application(*arguments, "study=moon")
    outcome.is_mistake()
    assert any(words in outcome.errors for words in ("is refused", "is not allowed", "runs commands")), outcome.errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf"]

"""What a command prints at its end works: run folder, link, and the next commands of every stage."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose

from findistill.config.groups import options
from findistill.config.validate import validate
from findistill.core.closing import closing_lines, next_lines
from tests.fixtures.composing import composed, shipped

SETTINGS = ["study=moon", "data=csv", "data.path=my news.csv", "data.label_column=label", "seed=3"]

ENDS = ("report", "status", "predict", "serve")  # no next command follows these


@pytest.mark.parametrize("stage", [name for name in options()["stage"] if name not in ENDS])
def test_the_next_commands_of_a_stage_compose(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my news.csv").write_text("text,label\nProfit rose,positive\n")
    folder = Path("runs/moon/job-0123abcd")
    (folder / "model").mkdir(parents=True)
    (folder / "onnx").mkdir()
    for name, content in {"config.json": "{}", "model.safetensors": "\2\0\0\0\0\0\0\0{}", "tokenizer.json": "{}"}.items():
        (folder / "model" / name).write_text(content)
    folder.with_name(f"latest-{stage}").symlink_to(folder.name)
    overrides = [f"stage={stage}", *SETTINGS, *(["evaluate.model=runs/moon/other"] if stage in ("evaluate", "export") else [])]
    first, *following = closing_lines(composed(*overrides), folder, overrides).splitlines()
    assert first == f"run folder: {folder} (also runs/moon/latest-{stage})"
    commands = [line.removeprefix("next: ").strip() for line in following]
    assert commands, f"conf/stage/{stage}.yaml names no next command"
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "findistill":
            with shipped():
                config = compose("config", overrides=arguments)
            validate(config)
            assert config.study == "moon"
        else:
            assert program == "python" and re.search(rf"latest-{stage}/onnx/run.py", command)


def test_after_a_sweep_that_made_its_report_the_report_is_not_next(tmp_path: Path) -> None:
    for overrides, words in ((["stage=student"], ["next: findistill stage=export "]), (["stage=fewshot"], [])):
        lines = next_lines(composed(*overrides), tmp_path / "moon" / "job-0", overrides, report=False)
        assert len(lines) == len(words) and all(line.startswith(word) for line, word in zip(lines, words, strict=True))


def test_the_next_commands_for_a_job_that_is_not_the_latest_name_its_folder(tmp_path: Path) -> None:
    study = tmp_path / "moon"
    for name in ("student-0", "student-1"):
        (study / name).mkdir(parents=True)
    (study / "latest-student").symlink_to("student-1")
    for name, model in (("student-0", "student-0"), ("student-1", "latest-student")):
        [line] = next_lines(composed("stage=student", "study=moon"), study / name, [], report=False)
        assert line == f"next: findistill stage=export evaluate.model={study / model}"


def test_what_concerned_this_command_alone_is_not_in_the_next(tmp_path: Path) -> None:
    overrides = ["stage=annotate", "annotate.limit=5", "plan=false", f"runs_dir={tmp_path}"]
    lines = closing_lines(composed(*overrides), tmp_path / "default" / "annotate-0", overrides)
    assert f"next: findistill stage=student annotate.limit=5 runs_dir={tmp_path}" in lines and "latest" not in lines


def test_the_next_command_has_the_conf_folders_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config-dir` sets the variable; without it the printed command would not know the user's options."""
    config = composed("stage=annotate", "study=moon")
    monkeypatch.setenv("FINDISTILL_CONF", "/my conf")
    lines = next_lines(config, tmp_path / "moon" / "job-0", [], report=False)
    assert lines and all("FINDISTILL_CONF='/my conf' findistill " in line for line in lines)

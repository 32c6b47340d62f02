"""Results are valid only for the files they were computed from: changed files are read anew, restored ones reuse the result."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.faults.conftest import CSV, OWN, ROWS, Application

QUICK = ("trainer.max_epochs=1", "evaluate.latency=false", "evaluate.resamples=10", "logger=none")


def folders(root: Path) -> set[str]:
    return {path.parent.name for path in root.glob("runs/default/*/metrics.json") if not path.parent.is_symlink()}


def change_a_cell(root: Path) -> Callable[[], None]:
    path = root / "mine.csv"
    before = path.read_text()
    path.write_text(before.replace("positive", "negative", 1))
    return lambda: path.write_text(before) and None


def change_weights(root: Path) -> Callable[[], None]:
    path = root / "parent" / "model.safetensors"
    before = path.read_bytes()
    save_file({name: value * 1.5 for name, value in load_file(path).items()}, path, {"format": "pt"})
    return lambda: path.write_bytes(before) and None


def change_an_answer(root: Path) -> Callable[[], None]:
    path = root / "answers.csv"
    before = path.read_text()
    path.write_text(before.replace("Sentiment: positive", "Sentiment: negative", 1))
    return lambda: path.write_text(before) and None


def runs_anew_and_meets_the_old_result(
    application: Application, command: tuple[str, ...], root: Path, change: Callable[[Path], Callable[[], None]], file: str
) -> None:
    assert application(*command).code == 0
    [first] = folders(root)
    restore = change(root)
    result = application(*command)
    assert result.code == 0 and f"{file} changed since {first}: running again" in result.errors
    assert len(folders(root)) == 2
    restore()
    result = application(*command)
    assert result.code == 0 and f"already done: runs/default/{first}" in result.errors
    assert len(folders(root)) == 2


@pytest.mark.parametrize(
    ("change", "file"), [(change_a_cell, "mine.csv"), (change_weights, "model.safetensors")], ids=["cell", "weights"]
)
def test_data_and_weights(
    application: Application,
    teacher: tuple[str, ...],
    tiny: Path,
    tmp_path: Path,
    change: Callable[[Path], Callable[[], None]],
    file: str,
) -> None:
    (tmp_path / "parent").mkdir()
    for part in tiny.iterdir():
        (tmp_path / "parent" / part.name).write_bytes(part.read_bytes())
    command = (*teacher, *QUICK, f"teacher.model={tmp_path / 'parent'}")
    runs_anew_and_meets_the_old_result(application, command, tmp_path, change, file)


def test_recorded_answers(application: Application, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(CSV)
    (tmp_path / "answers.csv").write_text("text,answer\n" + "".join(f"{text},Sentiment: {label}\n" for text, label in ROWS))
    command = ("stage=annotate", *OWN, "llm=recorded", "llm.path=answers.csv", "evaluate.resamples=10", "logger=none")
    runs_anew_and_meets_the_old_result(application, command, tmp_path, change_an_answer, "answers.csv")

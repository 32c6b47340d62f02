"""An installed package's options are available wherever the shipped ones are."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from findistill.data.config import FileData
from findistill.data.dataset import Dataset
from findistill.llm.config import LLM
from findistill.llm.identity import llm_identity
from tests.extending.conftest import PACKAGE, Extended


def test_help_lists_its_options(extended: Extended) -> None:
    result = extended("--help")
    assert "moonnews" in result.stdout and "moonshot" in result.stdout and "base_" not in result.stdout


def test_its_sections_and_options_are_part_of_the_configuration(extended: Extended) -> None:
    result = extended("--cfg", "job", "data=moonnews", "experiment=moonshot", "backtest.side=short")
    assert result.returncode == 0, result.stderr
    assert "backtest:\n  days: 7\n  side: short" in result.stdout and "phase: full" in result.stdout


MISTAKES = {
    "option": ("data=monnews", "data=monnews: no such option, did you mean moonnews?"),
    "test set": ("evaluate.also=[monnews]", "evaluate.also=monnews: no such data set (did you mean moonnews?)"),
    "demonstrations": ("shots.source=monnews", "shots.source=monnews: no such data set (did you mean moonnews?)"),
    "setting": ("backtest.day=3", "backtest.day: no such setting. Did you mean backtest.days?"),
    "bound": ("backtest.days=0", "backtest.days=0 must be at least 1"),
    "choice": ("data=moonnews data.phase=old shots.k=0", "data.phase=old: choose one of new, full"),
    "pretraining": (
        "student=bag student.pretrain.source=demo",
        "student.pretrain.source is for transformers models; bag is created",
    ),
    "rule": ("backtest.side=both backtest.days=2", "backtest.side=both needs backtest.days=5 or more"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_it_is_worded_as_any_other(extended: Extended, name: str) -> None:
    command, words = MISTAKES[name]
    result = extended(*command.split())
    assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_the_content_of_a_file_that_its_reader_reads_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINDISTILL_ALLOW", "moonpack")
    monkeypatch.syspath_prepend(PACKAGE)
    file = tmp_path / "headlines.tsv"
    section = OmegaConf.structured(FileData(_target_="moonpack.topics.topics", name="topics", path=str(file)))
    keys = []
    for text in ("deals\tA buys B\n", "rates\tA buys B\n", "deals\tA buys B\n"):
        file.write_text(text)
        keys.append(Dataset(section).key)
    assert keys[0] == keys[2] != keys[1]


def test_two_engines_of_equal_settings_are_two_annotators() -> None:
    engines = [LLM(_target_=f"moonpack.keywords.{name}", name="keywords", model="keywords") for name in ("First", "Second")]
    assert llm_identity(engines[0]) != llm_identity(engines[1])


def test_its_code_is_allowed_in_slots_and_no_other_package_is(extended: Extended) -> None:
    allowed = extended("data._target_=moonpack.nothing.here", "shots.k=0")
    assert "data._target_=moonpack.nothing.here cannot be loaded" in allowed.stderr
    other = extended("data._target_=sunpack.reader.read")
    assert "data._target_=sunpack.reader.read is not allowed" in other.stderr and "FINDISTILL_ALLOW=sunpack" in other.stderr


def test_a_package_that_cannot_be_loaded_is_named(extended: Extended, installed, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "moonpack").mkdir()
    (tmp_path / "moonpack" / "__init__.py").write_text("")
    result = extended("--cfg", "job")  # `-m` puts the working directory first on sys.path
    assert result.returncode == 2 and "the package moonpack cannot be loaded: moonpack.plugin" in result.stderr, result.stderr

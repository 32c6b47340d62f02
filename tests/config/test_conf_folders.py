"""A user's conf folder is used wherever the shipped one is, however it is specified."""

from pathlib import Path

import pytest

from tests.conftest import Command

WAYS = ("config-dir", "config-dir=", "searchpath", "variable")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "mynews.yaml").write_text(
        f"# My news.\ndefaults: [base_file, _self_]\n_target_: findistill.data.sources.csv.read\nname: mynews\n"
        f"path: {tmp_path}/news.csv\nlabel_column: label\n"
    )
    (folder / "prompt").mkdir()
    (folder / "prompt" / "myprompt.yaml").write_text("# Mine.\ndefaults: [direct, _self_]\nname: myprompt\n")
    (tmp_path / "news.csv").write_text("text,label\nUp,positive\nDown,negative\n")
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_it_counts_in_help_suggestions_and_names_inside_settings(findistill: Command, folder: Path, way: str) -> None:
    flags = {"config-dir": ["--config-dir", str(folder)], "config-dir=": [f"--config-dir={folder}"], "variable": []}
    flags["searchpath"] = [f"hydra.searchpath=[file://{folder}]"]
    environment = {"FINDISTILL_CONF": str(folder)} if way == "variable" else {}

    def run(*arguments: str) -> str:
        result = findistill(*flags[way], *arguments, **environment)
        return result.stdout + result.stderr

    help_text = run("--help")
    assert "mynews" in help_text and "myprompt" in help_text
    assert "data=mynewz: no such option, did you mean mynews?" in run("data=mynewz")
    assert "evaluate.also=mynewz: no such data set (did you mean mynews?)" in run("evaluate.also=[mynewz]")
    assert "shots.source=mynewz: no such data set (did you mean mynews?)" in run("-m", "shots.source=mynewz,mynews")
    assert "distill.min_agreement=9 can never be reached" in run(
        "data=mynews", "shots.source='mynews limit=20'", "evaluate.also=[mynews]", "distill.min_agreement=9"
    )


def test_a_folder_that_does_not_exist(findistill: Command) -> None:
    for arguments, environment, words in (
        (["--config-dir", "nowhere"], {}, "--config-dir nowhere: no such folder"),
        ([], {"FINDISTILL_CONF": "nowhere"}, "nowhere: no such folder"),
        (["--help"], {"FINDISTILL_CONF": "nowhere"}, "nowhere: no such folder"),
    ):
        result = findistill(*arguments, **environment)
        assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr, result.stderr


def test_a_file_of_ones_own_options_that_is_missing_is_named_before_anything_runs(findistill: Command, folder: Path) -> None:
    for path, words in (
        ("", "data.path is not set; data=mynews needs data.path=FILE"),
        ("no.csv", "data.path=no.csv: no such file"),
    ):
        result = findistill("--config-dir", str(folder), "stage=teacher", "data=mynews", f"data.path={path}", "plan=true")
        assert result.returncode == 2 and words in result.stderr, result.stderr

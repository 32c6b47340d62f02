"""The files and commands of docs/extending.md work verbatim."""

import re
from pathlib import Path

import pytest

from findistill.config.groups import config_dir
from tests.conftest import ROOT, Command
from tests.extending.conftest import PACKAGE, Extended
from tests.extending.test_pipeline import headlines

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```(?:yaml|python)\n# ((?:conf|moonpack)/\S+)\n(.*?)```", PAGE, re.DOTALL))
SHOWN = {name: PACKAGE / "moonpack" / name.removeprefix("moonpack/") for name in BLOCKS}  # their paths in the package
FILES = {name: text for name, text in BLOCKS.items() if not SHOWN[name].exists()}  # those of the conf folder only
NEWS = "headline,label\n" + "".join(f"Company {n} {word},{word}\n" for n in range(20) for word in ("up", "flat", "down"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "news.csv").write_text(NEWS)
    (tmp_path / "ratings.csv").write_text("text,rating\nGood,buy\nBad,sell\n")
    return tmp_path / "conf"


def test_the_page_has_the_files_it_says() -> None:
    assert sorted(FILES) == ["conf/data/mynews.yaml", "conf/data/ratings.yaml", "conf/prompt/analyst.yaml"]
    assert not [name for name in FILES if (config_dir().parent / name).exists()]


def test_the_examples_are_the_package_that_the_pipeline_runs_with() -> None:
    examples = {name: text for name, text in BLOCKS.items() if name not in FILES}
    assert examples == {name: SHOWN[name].read_text(encoding="utf-8") for name in examples}
    kinds = {name.split("/")[1] for name in examples if name.startswith("conf/")}
    assert kinds == {"data", "prompt", "distill", "student", "llm", "callbacks", "stage"}
    modules = {name for name in examples if name.endswith(".py")}
    files = {f"moonpack/{path.name}" for path in (PACKAGE / "moonpack").glob("*.py")} - {"moonpack/__init__.py"}
    assert modules == files


@pytest.mark.parametrize(
    "command",
    [
        "data=mynews data.limit=500",
        "evaluate.also=[mynews]",
        "shots.source='mynews limit=500'",
        "shots.source={name:mynews,limit:500}",
        "data=ratings shots.k=3",
        "prompt=analyst",
    ],
)
def test_the_settings_of_the_page_are_valid(findistill: Command, folder: Path, command: str) -> None:
    # The last setting is a mistake, and the only one reported.
    arguments = re.findall(r"(?:[^\s']|'[^']*')+", command)
    result = findistill("--config-dir", "conf", *arguments, "distill.min_agreement=9", HOME=str(folder.parent))
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert "distill.min_agreement=9 can never be reached" in result.stderr


def test_the_prompt_is_shown(findistill: Command, folder: Path) -> None:
    result = findistill("--config-dir=conf", "stage=annotate", "prompt=analyst", "annotate.show_prompt=true")
    assert result.returncode == 0 and "sell-side analyst" in result.stdout + result.stderr, result.stderr
    assert "Rating:" in result.stdout + result.stderr


@pytest.mark.slow
def test_a_prompt_with_a_label_set_of_ones_own(findistill: Command, folder: Path) -> None:
    rows = "".join(f"Note {number} says {rating},{rating}\n" for number in range(9) for rating in ("buy", "hold", "sell"))
    (folder.parent / "ratings.csv").write_text("text,rating\n" + rows)
    (folder.parent / "recorded.csv").write_text("text,answer\n" + rows.replace(",buy", ",Rating: accumulate"))
    command = ("--config-dir=conf", "stage=annotate", "data=ratings", "prompt=analyst", "shots.k=0")
    words = "prompt.wording={sell: sell, hold: hold, buy: accumulate}"
    result = findistill(*command, "annotate.show_prompt=true", words)
    assert "Rating: <sell, hold or accumulate>" in result.stdout, result.stderr
    result = findistill(*command, words, "llm=recorded", "llm.path=recorded.csv", "logger=none", "evaluate.resamples=10")
    assert result.returncode == 0 and "accuracy 1.000" in result.stderr, result.stderr
    result = findistill(*command, "prompt.wording={sell: reduce}")
    assert result.returncode == 2 and "has no word for the label 'hold'" in result.stderr, result.stderr


@pytest.mark.parametrize("command", re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)[0].splitlines())
def test_the_commands_of_the_package_can_be_planned(extended: Extended, tmp_path: Path, command: str) -> None:
    for name in ("headlines.tsv", "other.tsv"):
        (tmp_path / name).write_text(headlines())
    result = extended(*command.split()[1:], "plan=true")
    assert result.returncode == 0 and "to run" in result.stdout, result.stderr

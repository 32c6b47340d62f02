"""The wheel holds the complete package, with configuration and data, and every documented command works from it."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import findistill
from tests.conftest import ROOT
from tests.fixtures.preloaded import Preloaded
from tests.readme.test_readme import OURS, covering, write_own_files


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel built from it, as in a release."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [path] = built.glob("*.whl")
    return path


def test_the_sdist_has_what_a_release_needs_and_nothing_of_this_machine(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "conf/config.yaml", "src/findistill/cli.py"} <= names
    assert not [name for name in names if name.startswith(("runs", ".venv", "wandb", ".git/")) or "__pycache__" in name]


def test_its_metadata_has_the_command_the_licence_and_the_version(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [info] = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert "findistill = findistill.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    metadata = archive.read(f"{info}/METADATA").decode()
    assert f"Version: {findistill.__version__}" in metadata and "License-Expression: Apache-2.0" in metadata
    assert f"{info}/licenses/LICENSE" in archive.namelist() and "Description-Content-Type: text/markdown" in metadata


def test_it_holds_the_files_of_the_checkout_and_no_others(wheel: Path) -> None:
    packages = {path.relative_to(ROOT / "src"): path for path in (ROOT / "src").rglob("*") if path.is_file()}
    conf = {"findistill/conf" / path.relative_to(ROOT / "conf"): path for path in (ROOT / "conf").rglob("*.yaml")}
    ours = {name.as_posix(): path.read_bytes() for name, path in (packages | conf).items() if "__pycache__" not in name.parts}
    archive = zipfile.ZipFile(wheel)
    theirs = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert theirs.keys() == ours.keys()
    assert [name for name, content in theirs.items() if content != ours[name]] == []
    assert {"findistill/help.txt", "findistill/data/demo/corpus.jsonl", "hydra_plugins/findistill_sweeper/__init__.py"} <= set(
        ours
    )
    assert not [name for name in ours if name.endswith((".parquet", ".csv"))]


def test_the_installed_package_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import findistill; from findistill.cli import main; "
        "assert 'site' in findistill.__file__, findistill.__file__; main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for arguments in (["--cfg", "job", "experiment=demo"], ["-m", "distill=cls,reg", "distill.min_agreement=9"]):
        result = subprocess.run(
            [sys.executable, "-c", program, str(site), *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip
        if "-m" in arguments:
            assert result.returncode == 2 and "can never be reached" in result.stderr, result.stderr
        else:
            assert result.returncode == 0 and "study: demo" in result.stdout, result.stderr


PARTS = 4  # the commands are split among test workers

# Errors about what an empty folder and an environment without the launchers' extras lack.
ABSENT = re.compile(
    r"^findistill: (study=\w+: runs/\w+ does not exist; studies in runs: none yet$|data=\w+ .*FINDISTILL_DATA|"
    r"(distill\.teacher: )?the model runs/\S+: no such folder(;.*)?$|export\.annotations=runs/\S+: no such folder;|"
    r"data\.reviewed=runs/\S+: no such file; stage=review writes it|"
    r"hydra/launcher=\w+ needs \w+, which is not installed)",
    re.MULTILINE,
)


def typed(command: str) -> list[str]:
    """The arguments of a command: as they are if it is cheap, else as a plan, or only composed if planning takes minutes."""
    words = shlex.split(command)[1:]
    if any(word.startswith("experiment=") for word in words):
        overrides = OverridesParser.create().parse_overrides([word for word in words if word != "-m"])
        return [*covering(overrides)[0], "--cfg", "job"]
    cheap = ("--cfg", "--help", "--version", "stage=report", "annotate.dry_run=true", "annotate.show_prompt=true", "plan=true")
    trains = "augment=tinyfinbert" in words  # its dry run depends on a teacher's errors, and so on minutes of training
    return words if set(words) & set(cheap) and not trains else [*words, "plan=true"]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_command_of_the_documents_is_typed_from_the_installed_wheel(
    part: int, wheel: Path, preloaded: Preloaded, tmp_path: Path
) -> None:
    site, folder = tmp_path / "site", tmp_path / "empty"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=200)
    folder.mkdir()
    write_own_files(folder)
    failed = []
    for command in ["findistill --help", "findistill --version", *OURS][part::PARTS]:
        result = preloaded.run(["findistill", *typed(command)], folder, {**os.environ, "PYTHONPATH": str(site)}, 300)
        if result.returncode and not (
            result.returncode == 2 and ABSENT.search(result.stderr) and "Traceback" not in result.stderr
        ):
            failed.append(f"{command}\n{result.stderr[-1000:]}")
    assert not failed, "\n".join(failed)

"""The parts of a release besides the wheel: the citation, and a workflow that uses our commands."""

import shlex
from pathlib import Path

import pytest
import yaml

import findistill
from findistill.config.validate import validate
from tests.conftest import ROOT
from tests.fixtures.composing import composed

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors", "version", "license"} <= citation.keys()
    assert citation["version"] == findistill.__version__ and citation["license"] == "Apache-2.0"


def test_nothing_is_published_that_was_not_tested_and_only_that_job_may() -> None:
    jobs = WORKFLOW["jobs"]
    assert jobs["publish"]["needs"] == "test" and jobs["test"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in jobs["build"] and "permissions" not in jobs["test"]
    used = [step.get("uses", "") for step in jobs["test"]["steps"]]
    assert not any(use.startswith("actions/checkout") for use in used)  # the built package is tested, not the checkout
    assert not any("password" in str(step) or "secrets." in str(step) for job in jobs.values() for step in job["steps"])


def test_its_commands_are_ones_that_findistill_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "try" / "latest-teacher" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "try" / "latest-teacher" / "model" / "README.md").touch()
    monkeypatch.chdir(tmp_path)
    script = WORKFLOW["jobs"]["test"]["steps"][-1]["run"]
    commands = [shlex.split(line)[1:] for line in script.splitlines() if line.startswith("findistill ")]
    assert len(commands) == 3
    for words in commands:
        if words != ["--version"]:
            validate(composed(*words))

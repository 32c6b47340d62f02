"""The documentation site: it includes every page, its table every stage, and it shows what commands print."""

import re
from pathlib import Path

import yaml

from findistill.config.groups import options
from findistill.methods.status.stage import describe
from tests.conftest import ROOT
from tests.methods.status.test_status import moon
from tests.readme.test_readme import DOCUMENTS, commands

assert moon  # a fixture
PAGES = ROOT / "site" / "pages"


def navigated(entries: object) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    values = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in values for page in navigated(entry)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_navigation_and_warnings_are_errors() -> None:
    config = yaml.safe_load((ROOT / "site" / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = navigated(config["nav"])
    assert {(PAGES / page).resolve() for page in pages} >= {*DOCUMENTS} and len(pages) == len(set(pages))
    assert config["theme"]["font"] is False  # pages load nothing from elsewhere
    build = re.search(r"mkdocs build .*", (ROOT / "Makefile").read_text())
    assert build and "--strict" in build[0] and "--quiet" not in build[0]  # --strict does not count warnings that --quiet hides
    assert "make docs" in (ROOT / ".ci" / "run").read_text()


def test_links_hold_in_the_repository_as_well() -> None:
    links = [(page, link) for page in DOCUMENTS for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))]
    broken = [(page.name, link) for page, link in links if not re.match(r"\w+:", link) and not (page.parent / link).exists()]
    assert not broken


def test_every_stage_is_in_the_table() -> None:
    typed = {word for command in commands(ROOT / "docs" / "stages.md") for word in command.split()}
    assert {f"stage={name}" for name in options()["stage"]} <= typed


def test_the_status_that_is_shown_has_the_words_of_the_real_one(moon: Path) -> None:
    match = re.search(r"```text\n(job .*?)```", (ROOT / "docs" / "stages.md").read_text(encoding="utf-8"), re.DOTALL)
    assert match
    real = describe(moon)

    def shape(text: str) -> set[str]:
        rows = [re.split(r" {2,}", line) for line in text.splitlines()]
        return {row[1] for row in rows if len(row) > 2} | {" ".join(rows[0])}

    assert shape(match[1]) - {"running"} == shape(real) - {"pruned"}
    for words in ("median of", "its process is gone", "one after the other", "next: findistill -m"):
        assert words in match[1] and words in real

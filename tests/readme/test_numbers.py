"""Every number with two or more decimals on a page is in a committed CSV, or in `experiments/quoted.csv` with its source."""

import csv
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.readme.test_readme import DOCUMENTS

QUOTED = ROOT / "experiments" / "quoted.csv"
NUMBER = re.compile(r"(?<![\w.\-/])\d+\.\d{2,}(?![\w.])")


def values(path: Path) -> set[float]:
    """All numbers in the cells of a CSV file, without signs."""
    with path.open(encoding="utf-8", newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    return {float(number) for cell in cells for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", cell)}


def quoted(page: str) -> set[float]:
    with QUOTED.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["page"] == page]
    assert all(row["source"] for row in rows)
    return {float(number) for row in rows for number in row["values"].split()}


def numbers(text: str) -> list[str]:
    """The numbers in a page's text and tables, excluding commands, settings and addresses."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    return NUMBER.findall(re.sub(r"\]\([^)]*\)", "]", text))


def unsupported(page: Path) -> list[str]:
    study = page.parent if page.parent.parent.name == "experiments" else ROOT / "experiments"
    known = set().union(*(values(path) for path in study.rglob("*.csv") if path != QUOTED))
    known |= quoted(page.relative_to(ROOT).as_posix())

    def supported(number: str) -> bool:
        half = 0.5001 * 10 ** -len(number.partition(".")[2])
        return any(abs(value - float(number)) <= half for value in known)

    return [number for number in numbers(page.read_text(encoding="utf-8")) if not supported(number)]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_number_on_a_page_is_in_a_committed_csv(page: Path) -> None:
    assert unsupported(page) == []


def test_a_number_that_is_in_no_csv_is_seen(tmp_path: Path) -> None:
    assert numbers("0.734 in [a](x/0.11.md), `0.55`, 1.5 and v0.22.1, 0.99%") == ["0.734", "0.99"]
    assert sum(len(numbers(page.read_text(encoding="utf-8"))) for page in DOCUMENTS) > 800

"""The page in a browser: sorting, filtering and searching tables, copying commands, no violation reported by axe-core."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from findistill.report.methods import Run
from findistill.report.page import build_report
from findistill.report.runs import Entry
from tests.fixtures.machine import slowness
from tests.fixtures.studies import make_run, student

pytestmark = pytest.mark.slow
BROWSER = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def write_study(folder: Path, *, many: bool) -> Path:
    """Write a report on 200 jobs, or on a few; the commands name the jobs."""
    thresholds, seeds = ((5, 6, 7, 8), range(20)) if many else ((5, 8), range(2))
    runs = [student(objective, threshold, seed, 1 + threshold / 8 + (objective == "reg") / 2, n=120)
            for objective in ("cls", "reg") for threshold in thresholds for seed in seeds]  # fmt: skip
    for at in range(4 if many else 1):
        runs += [make_run(f"teacher {at}", "teacher", seed, skill=2.0 + at / 4, n=120,
                          config={"seed": seed, "teacher": {"name": f"t{at}"}, "data": {"name": "made_up"}})
                 for seed in range(10 if many else 2)]  # fmt: skip
    runs.append(make_run(f"odd {EVIL}", "baseline", None, skill=0.5, n=120, config={"data": {"name": "made_up"}}))
    runs.append(annotator(120))
    placed, entries = [], []
    for number, run in enumerate(runs):
        if run.kind == "baseline":
            placed.append(run)
            continue
        job = folder / "moon" / f"job-{number:03d}"
        job.mkdir(parents=True)
        (job / "command.txt").write_text(f"findistill stage={run.kind} study=moon seed={run.seed} +job={number}\n")
        status = {"state": "done", "device": "cpu", "git_commit": "0123456789abcdef", "version": "0.2", "started": "2026-01-01"}
        placed.append(Run(**{**vars(run), "folder": job, "status": status}))
        entries.append(Entry(job, status, run.config, placed[-1]))
    return build_report(f"moon {EVIL}", placed, [], folder / "moon", resamples=50, entries=entries).html


def annotator(n: int) -> Run:
    run = make_run("annotator (llm, 8 samples)", "baseline", None, skill=1.0, n=n, config={"data": {"name": "made_up"}})
    run.predictions["agreement"], run.predictions["n_samples"] = 6, 8
    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {name: write_study(folder / name, many=name == "many") for name in ("few", "many")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the dev extra is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield chromium
        chromium.close()


def opened(browser: Any, page: Path, **options: Any) -> tuple[Any, list[str]]:
    """Open the page in a new tab; return the tab and its console messages."""
    tab = browser.new_context(**options).new_page()
    messages: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("dialog", lambda dialog: (messages.append(f"dialog {dialog.message}"), dialog.dismiss()))
    tab.goto(page.as_uri())
    return tab, messages


def column(tab: Any, table: str, at: int) -> list[str]:
    return tab.locator(f"{table} tbody tr td:nth-child({at})").all_inner_texts()


def sort(head: Any, direction: str) -> None:
    """Press the sort button in a column header until the table is sorted in this direction."""
    while head.get_attribute("aria-sort") != direction:
        head.locator("button.dtcc-button_order").click()
        head.page.wait_for_timeout(100)


def test_two_hundred_jobs_are_small_and_fast_and_run_no_script_of_a_name(browser: Any, pages: dict[str, Path]) -> None:
    assert pages["many"].stat().st_size < 5e6
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        tab, messages = opened(browser, pages["many"])
        tab.wait_for_selector("#jobs-table.dataTable")
        seconds.append(time.perf_counter() - start)
    assert messages == [] and EVIL in tab.title() and "200 " in tab.inner_text("body")
    assert min(seconds) < 2 * slowness()


def test_a_table_is_sorted_searched_filtered_and_its_columns_hidden(browser: Any, pages: dict[str, Path]) -> None:
    tab, messages = opened(browser, pages["many"])
    heads = [text.strip() for text in tab.locator("#jobs-table thead th").all_inner_texts()]
    place = heads.index("Accuracy") + 1
    jobs = tab.locator(".dt-container").filter(has=tab.locator("#jobs-table"))
    head = tab.locator(f"#jobs-table thead th:nth-child({place})")
    sort(head, "ascending")
    values = [float(cell) for cell in column(tab, "#jobs-table", place)]
    assert values == sorted(values) and len(values) == 25
    sort(head, "descending")
    first = [float(cell) for cell in column(tab, "#jobs-table", place)]
    assert first == sorted(first, reverse=True)
    jobs.get_by_label("Search", exact=True).fill("+job=117")
    assert len(column(tab, "#jobs-table", 1)) == 1
    jobs.get_by_label("Search", exact=True).fill("")
    head.locator("button.dtcc-button_dropdown").click()
    tab.locator(".dtcc-dropdown select").select_option("greater")
    limit = first[10]
    tab.locator(".dtcc-dropdown input").fill(str(limit))
    assert all(float(cell) > limit for cell in column(tab, "#jobs-table", place))
    tab.locator(".dtcc-dropdown .dtcc-list-buttons button", has_text="Device").click()
    headers = [text.strip() for text in tab.locator("#jobs-table thead th").all_inner_texts()]
    assert [name for name in heads if name not in headers] == ["Device"] and messages == []


def test_the_command_of_a_row_is_copied(browser: Any, pages: dict[str, Path]) -> None:
    tab, _ = opened(browser, pages["few"], permissions=["clipboard-read", "clipboard-write"])
    for row in (0, 3, 5):
        line = tab.locator("#jobs-table tbody tr").nth(row)
        line.get_by_role("button", name="Copy").click()
        tab.wait_for_function("document.getElementById('copied').textContent")
        assert tab.evaluate("navigator.clipboard.readText()") == line.locator("code").text_content()


def test_a_figure_is_explored(browser: Any, pages: dict[str, Path]) -> None:
    tab, messages = opened(browser, pages["few"], viewport={"width": 1400, "height": 900})
    figure = tab.locator("figure").filter(has_text="figures/thresholds.png")
    button = figure.get_by_role("button", name="Explore")
    size = figure.locator("img").bounding_box()
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true" and figure.locator("img").is_hidden()
    drawing = figure.locator(".chart")
    assert drawing.get_attribute("aria-label") == figure.locator("img").get_attribute("alt")
    assert drawing.bounding_box()["height"] == pytest.approx(size["height"], abs=2)

    def words() -> list[str]:
        return [text for text in drawing.locator("text").all_text_contents() if text]

    def marks() -> Any:
        return drawing.locator("path[fill='#0072B2' i]")  # of CLS

    before = words()
    assert {"Accuracy", "≥5", "≥8", "CLS", "REG", "agreement threshold"} <= set(before)
    with_entries = marks().count()
    marks().first.hover(force=True)
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.chart text')].some(it => it.textContent.includes('accuracy 0.'))"
    )
    [tooltip] = [text for text in words() if text not in before and "accuracy 0." in text]
    assert tooltip.startswith("agreement threshold ≥") and " [0." in tooltip
    button.hover()
    tab.wait_for_function(
        "() => ![...document.querySelectorAll('.chart text')].some(it => it.textContent.includes('accuracy 0.'))"
    )
    drawing.get_by_text("CLS", exact=True).click(force=True)
    tab.wait_for_timeout(300)
    assert marks().count() < with_entries - 4, "its marks are hidden in both panels"
    button.press("Enter")
    assert figure.locator("img").is_visible() and drawing.is_hidden() and messages == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Any, pages: dict[str, Path], colours: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the dev extra is not installed")
    for width in (390, 1400):
        tab, _ = opened(browser, pages["few"], color_scheme=colours, viewport={"width": width, "height": 900}, bypass_csp=True)
        for button in tab.locator(".explore").all():
            button.click()
        violations = axe.Axe().run(tab).response["violations"]
        faults = [(one["id"], one["nodes"][0]["html"]) for one in violations if one["impact"] in ("serious", "critical")]
        assert faults == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_scores_are_seen_without_scrolling_sideways(browser: Any, pages: dict[str, Path]) -> None:
    wide, _ = opened(browser, pages["few"], viewport={"width": 1400, "height": 900})
    quality = wide.locator(".dt-layout-table").first
    assert quality.evaluate("it => it.scrollWidth <= it.clientWidth")
    assert wide.locator("#jobs-table tbody tr").first.evaluate("it => it.clientHeight") < 80
    narrow, _ = opened(browser, pages["few"], viewport={"width": 390, "height": 844})
    names = narrow.locator(".dt-layout-table").first.locator("tbody td:first-child").first
    assert names.evaluate("it => it.clientWidth") < 170  # a long name leaves the numbers more than half of the screen


def test_without_scripts_the_tables_are_plain_and_whole(browser: Any, pages: dict[str, Path]) -> None:
    tab, _ = opened(browser, pages["many"], java_script_enabled=False)
    assert tab.locator("#jobs-table tbody tr").count() == 200
    assert tab.locator("figure img").first.is_visible() and not tab.locator(".explore").first.is_visible()

"""The styles and scripts of the page: the libraries of its tables (MIT) and charts (Apache 2.0) in `vendor/`, and our own."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

HERE = Path(__file__).parent
STYLES = ("vendor/dataTables.dataTables.min.css", "vendor/columnControl.dataTables.min.css", "assets/report.css")
TABLES = ("vendor/dataTables.min.js", "vendor/dataTables.columnControl.min.js")
CHARTS = ("vendor/echarts.common.min.js",)
OWN = ("assets/report.js",)


@dataclass(frozen=True)
class Bundle:
    """Styles and scripts as embedded in the page.

    Attributes:
        allowed: sources for a Content-Security-Policy, so that no other script runs, whatever a label or a study is called.
    """

    styles: tuple[Markup, ...]
    scripts: tuple[Markup, ...]
    allowed: Markup


@cache
def bundle(*, charts: bool) -> Bundle:
    """The files of the package, read once; with `charts`, the library that draws them, too."""
    parts = (STYLES, (*TABLES, *(CHARTS if charts else ()), *OWN))
    styles, scripts = ([(HERE / name).read_text(encoding="utf-8") for name in names] for names in parts)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return Bundle(tuple(map(Markup, styles)), tuple(map(Markup, scripts)), Markup(allowed))

"""`entities.model=company_list`: marks the names in a list of companies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from findistill.data.company_list import CompanyList, list_files, read_names


def open_model(section: Any, labels: Sequence[str], folder: Path | None, accelerator: str) -> CompanyList:
    """The list of `entities.company_list`; its names get the data's first type."""
    return CompanyList(read_names(list_files(section.path)), labels[0])

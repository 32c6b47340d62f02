"""Cells that a spreadsheet would run as formulas: a leading apostrophe makes them text, and is removed when they are read."""

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # the beginnings of formulas


def quoted(cell: Any) -> Any:
    """The cell as a spreadsheet shows it without running it; unchanged if it is not the text of a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def unquoted(cell: str) -> str:
    """The text that `quoted` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell

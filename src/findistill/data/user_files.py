"""One's own data: columns by configuration, and every value that does not fit named with its place."""

from collections.abc import Mapping, Sequence
from typing import Any

from findistill.data.config import FileData
from findistill.data.labels import SENTIMENT
from findistill.data.locations import own_path
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.tables import as_text, is_missing
from findistill.data.text_key import text_key
from findistill.errors import UserError

Rows = Sequence[Mapping[str, Any]]


def from_file(config: FileData, rows: Rows) -> Source:
    """The rows of `data.path`."""
    path = own_path(config)
    return from_rows(config, rows, str(path), path.name, [f"{path.stem}/{row}" for row in range(len(rows))])


def from_rows(
    config: FileData, rows: Rows, origin: str, name: str, ids: list[str], splits: Sequence[str | None] | None = None
) -> Source:
    """Columns by configuration; every value that does not fit is named with its place. Rows are counted from 1.

    `ids` and `splits` hold where the configuration names no column for them.

    Raises:
        UserError: a column is missing, or a value does not fit.
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    for key in ("text_column", "label_column", "id_column", "date_column", "split_column", "rationale_column"):
        column = getattr(config, key)
        if column is not None and column not in columns:
            raise UserError(f"{origin} has no column {column!r} (data.{key}); its columns are {', '.join(map(str, columns))}")

    def cells(column: str) -> list[str]:
        return [as_text(row.get(column)) for row in rows]

    texts = []
    for number, row in enumerate(rows, 1):
        value = row.get(config.text_column)
        if not isinstance(value, str) and not is_missing(value):
            raise UserError(f"{origin}, row {number}: {config.text_column}={value!r} is not a text; check data.text_column")
        texts.append(value if isinstance(value, str) else "")
    if not any(text.strip() for text in texts):
        raise UserError(f"{origin}: every value of the column {config.text_column!r} is blank; check data.text_column")

    values: dict[str, Sequence[Any]] = {"text": texts, "id": ids, "split": splits or [None] * len(texts)}
    if config.label_column:
        values["label"] = labels = _labels(config, cells(config.label_column), texts, origin)
    if config.split_column:
        values["split"] = parts = _splits(config.split_column, cells(config.split_column), origin)
        if config.label_column and any(labels):  # a row without a label can neither test nor validate
            values["split"] = parts = [part if label else "train" for part, label in zip(parts, labels, strict=True)]
        if config.on_leak == "refuse":
            _refuse_leaks(texts, parts, origin)
    if config.id_column:
        values["id"] = _unique(cells(config.id_column), origin)
    for key, column in (("date", config.date_column), ("rationale", config.rationale_column)):
        if column:
            values[key] = [cell or None for cell in cells(column)]
    source = [{**dict(zip(values, row, strict=True)), "source": name} for row in zip(*values.values(), strict=True)]
    return Source(source, origin, "the owner's", "data of one's own" if config.path else str(config.hub_id))


def _splits(column: str, cells: Sequence[str], origin: str) -> list[str]:
    for number, cell in enumerate(cells, 1):
        if cell.lower() not in SPLIT_NAMES:
            raise UserError(
                f"{origin}, row {number}: {column}={cell!r} is not a split; "
                "use train, validation, test or pool (data.split_column)"
            )
    return [SPLIT_NAMES[cell.lower()] for cell in cells]


def _unique(ids: list[str], origin: str) -> list[str]:
    first: dict[str, int] = {}
    for number, value in enumerate(ids, 1):
        if not value or first.setdefault(value, number) != number:
            why = f"also in row {first[value]}" if value else "empty"
            raise UserError(f"{origin}, row {number}: the id {value!r} is {why}; ids must be unique (data.id_column)")
    return ids


def _refuse_leaks(texts: Sequence[str], splits: Sequence[str], origin: str) -> None:
    """Raise UserError where a test text, in whatever spelling, is also to be learnt from: the owner should know."""
    rows = [(number, text_key(text), split) for number, (text, split) in enumerate(zip(texts, splits, strict=True), 1)]
    test = {key: number for number, key, split in rows if split == "test" and key}
    leaks = [(number, test[key], split) for number, key, split in rows if split != "test" and key in test]
    if leaks:
        number, test_row, split = leaks[0]
        raise UserError(
            f"{origin}: the text of row {test_row} (test) is also in row {number} ({split}); "
            f"so it is with {len(leaks)} of {len(texts)} rows.\n"
            "Remove them from one side, or set data.on_leak=drop to keep them in test only"
        )


def _labels(config: FileData, cells: Sequence[str], texts: Sequence[str], origin: str) -> list[str | None]:
    """Each row's label, None where the cell or the text is empty.

    Names are matched whatever their case. With `data.labels` unset, a label is spelled as where it comes first, but as
    `negative`, `neutral` or `positive` where it is one of these.
    """
    renamed = by_text(config.label_map)
    for key, value in renamed.items():
        if config.labels is not None and value not in config.labels:
            raise UserError(f"data.label_map.{key}={value}: not one of data.labels=[{','.join(config.labels)}]")
    names = SENTIMENT if config.labels is None else config.labels
    spelling = {name.lower(): name for name in names} | {key.lower(): value for key, value in renamed.items()}
    labels: list[str | None] = []
    for number, (cell, text) in enumerate(zip(cells, texts, strict=True), 1):
        if not cell or not text.strip():
            labels.append(None)
            continue
        if config.labels is not None and cell.lower() not in spelling:
            raise UserError(
                f"{origin}, row {number}: {config.label_column}={cell!r} is not one of {', '.join(config.labels)}.\n"
                f"Add it to data.labels, or translate it: data.label_map={{{cell}: {config.labels[0]}}}"
            )
        labels.append(spelling.setdefault(cell.lower(), cell))
    return labels


def by_text(label_map: Any) -> dict[str, str]:
    """`data.label_map` with its keys as text: {0: negative} and {"0": negative} mean the same. Raises UserError."""
    if label_map is None:
        return {}
    if not isinstance(label_map, Mapping):
        raise UserError(f"data.label_map={label_map}: a map from the file's names to labels is needed, {{0: negative}}")
    return {str(key).strip(): value for key, value in label_map.items()}

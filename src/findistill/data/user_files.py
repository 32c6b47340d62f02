"""The user's own data: columns by configuration, and an error with its place for every value that does not fit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from findistill.config.overrides import mapping_of, typed
from findistill.data.cells import SeveralLabelsError, as_label, as_text, folded, is_missing, lookup
from findistill.data.cells import names as field_names
from findistill.data.config import FileData
from findistill.data.delimited import Layout
from findistill.data.labels import MOST_NAMES, SENTIMENT
from findistill.data.locations import own_path
from findistill.data.rows import SPLIT_NAMES, Source
from findistill.data.text_key import text_key
from findistill.data.user_spans import read_spans
from findistill.errors import UserError, did_you_mean

Rows = Sequence[Mapping[str, Any]]
COLUMN_SETTINGS = ("text_column", "label_column", "spans_column", "id_column", "date_column", "split_column", "rationale_column")
NO_LABEL = {"", "nan", "null", "<na>", "\\n"}  # missing values as pandas and databases write them
MOST_LISTED = 40  # column names in a message


def layout(config: FileData) -> Layout:
    """The layout of a file according to `config`, and the columns that it needs."""
    columns = [column for key in COLUMN_SETTINGS[1:] if (column := getattr(config, key))]
    return Layout(config.delimiter, config.columns and list(config.columns), config.text_column, columns)


def from_file(
    config: FileData, rows: Rows, *, names: Mapping[str, Sequence[str]] | None = None, notes: Iterable[str] = ()
) -> Source:
    """The rows of `data.path`."""
    path = own_path(config)
    ids = [f"{path.stem}/{row}" for row in range(len(rows))]
    return from_rows(config, rows, str(path), path.name, ids, names=names, notes=notes)


def from_rows(
    config: FileData,
    rows: Rows,
    origin: str,
    name: str,
    ids: list[str],
    splits: Sequence[str | None] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    notes: Iterable[str] = (),
) -> Source:
    """Read columns by configuration; errors name the place of a value that does not fit. Rows are counted from 1.

    Columns may be nested fields, `data.text` (`cells.lookup`). `ids` and `splits` apply if the configuration names no column
    for them. `names` has the class names of some columns with numbers, `notes` lines for the card.

    Raises:
        UserError: a column is missing, or a value does not fit.
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    for key in COLUMN_SETTINGS:
        column = getattr(config, key)
        if column is None or column in columns or any(lookup(row, column) is not None for row in rows):
            continue
        fields = field_names(rows)
        if column not in fields:
            raise no_column(origin, config, key, fields)

    def cells(column: str) -> list[str]:
        return [as_text(lookup(row, column)) for row in rows]

    texts = [text_of(lookup(row, config.text_column), config, f"{origin}, row {number}") for number, row in enumerate(rows, 1)]
    if not any(text.strip() for text in texts):
        raise UserError(f"{origin}: every value of the column {config.text_column!r} is blank; check data.text_column")

    values: dict[str, Sequence[Any]] = {"text": texts, "id": ids, "split": splits or [None] * len(texts)}
    if config.label_column:
        label_cells = [lookup(row, config.label_column) for row in rows]
        values["label"] = _labels(config, label_cells, texts, origin, (names or {}).get(config.label_column, ()))
    if config.spans_column:
        values["spans"], remark = read_spans(config, rows, texts, origin)
        notes = [*notes, *filter(None, [remark])]
    if config.split_column:
        values["split"] = parts = _splits(config.split_column, cells(config.split_column), origin)
        annotated = values.get("spans", values.get("label", []))
        if any(each is not None for each in annotated):  # a row without a label is useless for test and validation
            values["split"] = parts = ["train" if each is None else part for part, each in zip(parts, annotated, strict=True)]
        if config.on_leak == "refuse":
            _refuse_leaks(texts, parts, origin)
    if config.id_column:
        values["id"] = _unique(cells(config.id_column), origin)
    for key, column in (("date", config.date_column), ("rationale", config.rationale_column)):
        if column:
            values[key] = [cell or None for cell in cells(column)]
    _refuse_half_characters(values, origin)
    source = [{**dict(zip(values, row, strict=True)), "source": name} for row in zip(*values.values(), strict=True)]
    citation = "the user's own data" if config.path else str(config.hub_id)
    return Source(source, origin, "the owner's", citation, notes=list(notes))


def no_column(origin: str, config: FileData, key: str, known: Sequence[str]) -> UserError:
    """The error for a file without the column that `data.<key>` names; `known` are the columns that it has."""
    column = getattr(config, key)
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    return UserError(
        f"{origin} has no column {column!r} (data.{key}){did_you_mean(column, known=known)}; "
        f"its columns are {', '.join(' '.join(name.split()) for name in known[:MOST_LISTED])}{more}"
    )


def half_of(error: UnicodeEncodeError) -> str:
    """The lone surrogate in a text, escaped."""
    return str(error.object)[error.start].encode("ascii", "backslashreplace").decode()


def text_of(value: Any, config: FileData, at: str) -> str:
    """The text of a cell, '' if it has none. Raises UserError for a number, a list or an object; `at` names the place."""
    if isinstance(value, bytes):  # as older Spark and Impala write texts
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str) and not is_missing(value):
        inside = field_names([{config.text_column: value}])
        fields = f"; it has the fields {', '.join(inside[:MOST_LISTED])}" if isinstance(value, Mapping | list) else ""
        raise UserError(f"{at}: {config.text_column}={_short(value)} is not a text{fields}; check data.text_column")
    return value if isinstance(value, str) else ""


def _refuse_half_characters(values: Mapping[str, Sequence[Any]], origin: str) -> None:
    """Raise UserError for a lone surrogate, which JSON can contain but no tokenizer can read."""
    for key, column in values.items():
        for number, value in enumerate(column, 1) if key != "spans" else ():
            try:
                (value or "").encode()
            except UnicodeEncodeError as error:
                half = half_of(error)
                raise UserError(f"{origin}, row {number}: a lone surrogate ({half}) in the {key}; remove or fix it") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


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
    """Raise UserError if a test text, in whatever spelling, is also in another split: the owner should know."""
    rows = [(number, text_key(text), split) for number, (text, split) in enumerate(zip(texts, splits, strict=True), 1)]
    test = {key: number for number, key, split in rows if split == "test" and key}
    leaks = [(number, test[key], split) for number, key, split in rows if split != "test" and key in test]
    if leaks:
        number, test_row, split = leaks[0]
        raise UserError(
            f"{origin}: the text of row {test_row} (test) is also in row {number} ({split}); "
            f"{len(leaks)} of {len(texts)} rows are affected.\n"
            "Remove them from one split, or set data.on_leak=drop to keep them in test only"
        )


def _labels(config: FileData, cells: Sequence[Any], texts: Sequence[str], origin: str, names: Sequence[str]) -> list[str | None]:
    """Each row's label, None if the cell or the text is empty.

    Names are matched regardless of case. If `data.labels` is unset, a label keeps the spelling of its first occurrence, except
    `negative`, `neutral` and `positive`, which are in lower case.

    Args:
        names: class names for numbers, unless `data.label_map` translates them.
    """
    renamed = by_text(config.label_map)
    for key, value in renamed.items():
        if config.labels is not None and value not in config.labels:
            raise UserError(f"data.label_map.{key}={value}: not one of data.labels=[{','.join(config.labels)}]")
    spelling = {folded(name): name for name in (SENTIMENT if config.labels is None else config.labels)} | {
        folded(key): value for key, value in renamed.items()
    }
    if set(map(str, range(len(names)))) & set(spelling):
        names = ()
    labels: list[str | None] = []
    first: dict[str, int] = {}
    for number, (cell, text) in enumerate(zip(cells, texts, strict=True), 1):
        label = _label(_named(cell, names), f"{origin}, row {number}", config)
        key = folded(label)
        if (key in NO_LABEL and key not in spelling) or not text.strip():
            labels.append(None)
            continue
        if config.labels is not None and key not in spelling:
            if _is_several(key, [*spelling]):
                raise UserError(_several(f"{origin}, row {number}: {config.label_column}={_short(label)}"))
            raise UserError(
                f"{origin}, row {number}: {config.label_column}={_short(label)} is not one of {', '.join(config.labels)}.\n"
                f"Add it to data.labels, or translate it: {typed('data.label_map', {label: config.labels[0]})}"
            )
        first.setdefault(key, number)
        labels.append(spelling.setdefault(key, label))
    for key, number in first.items() if config.labels is None and len(first) <= MOST_NAMES else ():
        if _is_several(key, [*first]):
            raise UserError(_several(f"{origin}, row {number}: {config.label_column}={_short(spelling[key])}"))
    return labels


def _named(cell: Any, names: Sequence[str]) -> Any:
    """A number of a `ClassLabel` column, or a list of them, as names; -1 is a missing label on the hub."""
    if not names or isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        return [_named(each, names) for each in cell]
    return names[int(cell)] if not is_missing(cell) and 0 <= cell < len(names) else None


def _label(cell: Any, at: str, config: FileData) -> str:
    try:
        return as_label(cell)
    except SeveralLabelsError as error:
        raise UserError(_several(f"{at}: {config.label_column}={_short(error.args[0])}")) from None
    except ValueError as error:
        fields = ", ".join(field_names([{str(config.label_column): cell}])) if not isinstance(cell, str) else ""
        raise UserError(
            f"{at}: {config.label_column}={_short(cell)} is {error}, not a label; set data.label_column to the field "
            f"with the label{f', one of {fields}' if fields else ''}"
        ) from None


def _is_several(key: str, keys: Sequence[str]) -> bool:
    """Whether a label such as `a|b` is several with a separator: each part is in `keys`, alone or with yet another one."""
    for mark in "|;,#":
        parts = {part.strip() for part in key.split(mark)}
        others = [{part.strip() for part in other.split(mark)} if mark in "|;" else {other} for other in keys if other != key]
        if len(parts) > 1 and all(any(part in other for other in others) for part in parts):
            return True
    return False


def _several(at: str) -> str:
    return (
        f"{at} has several labels, but findistill assigns one label per text; keep one per row, or leave the cell empty "
        "(if this is a single label, add it to data.labels)"
    )


def by_text(label_map: Any) -> dict[str, str]:
    """`data.label_map` with its keys as text: {0: negative} and {"0": negative} mean the same.

    It may also be a string in YAML or JSON, '{"利好": positive}', because Hydra's own grammar does not allow quoted keys.

    Raises:
        UserError: it is not a mapping.
    """
    if label_map is None:
        return {}
    label_map = mapping_of(label_map)
    if not isinstance(label_map, Mapping):
        raise UserError(f"data.label_map={label_map}: must map the file's names to labels, such as {{0: negative}}")
    return {str(key).strip(): str(value) for key, value in label_map.items()}

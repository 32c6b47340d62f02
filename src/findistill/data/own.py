"""One's own data: columns by configuration, and every value that does not fit named with its place."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from findistill.data.normalise import duplicate_key
from findistill.data.rows import SPLIT_NAMES, Source, frame_of
from findistill.data.whereabouts import own_path
from findistill.errors import UserError
from findistill.settings.schema import FileData

if TYPE_CHECKING:
    import pandas as pd


def from_file(config: FileData, table: "pd.DataFrame") -> Source:
    path = own_path(config)
    if not len(table):
        raise UserError(f"{path}: no rows")
    table = table.assign(_split=None, _row=[f"{path.stem}/{row}" for row in range(len(table))])
    return from_table(config, table, str(path), path.name)


def from_table(config: FileData, table: "pd.DataFrame", origin: str, name: str) -> Source:
    """Columns by configuration; every value that does not fit is named with its place. Rows are counted from 1."""
    columns = [column for column in table.columns if column not in ("_split", "_row")]
    for key in ("text_column", "label_column", "id_column", "date_column", "split_column", "rationale_column"):
        column = getattr(config, key)
        if column is not None and column not in columns:
            raise UserError(f"{origin} has no column {column!r} (data.{key}); its columns are {', '.join(map(str, columns))}")
    texts = []
    for row, value in enumerate(table[config.text_column], 1):
        if not isinstance(value, str) and not _missing(value):
            raise UserError(f"{origin}, row {row}: {config.text_column}={value!r} is not a text; check data.text_column")
        texts.append(value if isinstance(value, str) else "")
    if not any(text.strip() for text in texts):
        raise UserError(f"{origin}: every value of the column {config.text_column!r} is blank; check data.text_column")
    blank = [not text.strip() for text in texts]
    labels = _labels(config, table, origin, blank) if config.label_column else None
    splits = table["_split"].tolist()
    if config.split_column:
        splits = []
        for row, value in enumerate(map(_as_text, table[config.split_column]), 1):
            if value.lower() not in SPLIT_NAMES:
                raise UserError(
                    f"{origin}, row {row}: {config.split_column}={value!r} is not a split; "
                    "use train, validation, test or pool (data.split_column)"
                )
            splits.append(SPLIT_NAMES[value.lower()])
        if config.on_leak == "refuse":
            _refuse_leaks(texts, splits, origin)
    ids = table["_row"].tolist()
    if config.id_column:
        ids = [_as_text(value) for value in table[config.id_column]]
        seen: dict[str, int] = {}
        for row, value in enumerate(ids, 1):
            if not value or value in seen:
                why = f"also in row {seen[value]}" if value else "empty"
                raise UserError(f"{origin}, row {row}: the id {value!r} is {why}; ids must be unique (data.id_column)")
            seen[value] = row
    dates = [_as_text(value) or None for value in table[config.date_column]] if config.date_column else None
    given = config.rationale_column
    rationales = [_as_text(value) or None for value in table[given]] if given else None
    frame = frame_of(id=ids, text=texts, label=labels, split=splits, date=dates, source=name, rationale=rationales)
    return Source(frame, origin, "the owner's", "data of one's own" if config.path else str(config.hub_id))


def _refuse_leaks(texts: Sequence[str], splits: Sequence[str], origin: str) -> None:
    """Raise UserError where a test text, in whatever spelling, is also to be learnt from: the owner should know."""
    keys = [duplicate_key(text) if text.strip() else "" for text in texts]
    tested = {key: row for row, (key, split) in enumerate(zip(keys, splits, strict=True), 1) if split == "test" and key}
    leaks = [row for row, (key, split) in enumerate(zip(keys, splits, strict=True), 1) if split != "test" and key in tested]
    if leaks:
        first = leaks[0]
        raise UserError(
            f"{origin}: the text of row {tested[keys[first - 1]]} (test) is also in row {first} ({splits[first - 1]}); "
            f"so it is with {len(leaks)} of {len(texts)} rows.\n"
            "Remove them from one side, or set data.on_leak=drop to keep them in test only"
        )


def _labels(config: FileData, table: "pd.DataFrame", origin: str, blank: Sequence[bool]) -> list[str | None]:
    renamed = by_text(config.label_map)
    for key, value in renamed.items():
        if value not in config.labels:
            raise UserError(f"data.label_map.{key}={value}: not one of data.labels=[{','.join(config.labels)}]")
    known = {name.lower(): name for name in config.labels} | {key.lower(): value for key, value in renamed.items()}
    labels: list[str | None] = []
    for row, (value, skipped) in enumerate(zip(map(_as_text, table[config.label_column]), blank, strict=True), 1):
        label = known.get(value.lower())
        if not value and not skipped:
            raise UserError(
                f"{origin}, row {row}: {config.label_column} is empty.\n"
                "Give the row a label or remove it; without data.label_column all texts count as unlabelled"
            )
        if label is None and not skipped:
            raise UserError(
                f"{origin}, row {row}: {config.label_column}={value!r} is not one of {', '.join(config.labels)}.\n"
                f"Set data.labels, or translate: data.label_map={{{value}: {config.labels[0]}}}"
            )
        labels.append(label)
    return labels


def by_text(label_map: Any) -> dict[str, str]:
    """`data.label_map` with its keys as text: {0: negative} and {"0": negative} mean the same. Raises UserError."""
    if label_map is None:
        return {}
    if not isinstance(label_map, Mapping):
        raise UserError(f"data.label_map={label_map}: a map from the file's names to data.labels is needed, {{0: negative}}")
    return {str(key).strip(): value for key, value in label_map.items()}


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN and NaT alone differ from themselves


def _as_text(value: Any) -> str:
    """A cell as text, whole numbers without a decimal point (a column of integers with gaps comes as floats)."""
    if _missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()

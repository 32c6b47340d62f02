"""Annotate from a file of answers that were recorded elsewhere; nothing is requested from any model.

Rows are matched to a text by its id or by its normal form (`data.text_key.text_key`). A text's samples are its rows in file
order, and within a row the elements of a list (the choices of one call) or of several columns (one per person, model or
labelling function): at most `annotate.samples`, or fewer if the file has fewer.
"""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from findistill.core.step import load
from findistill.data.cells import as_text, lookup, names
from findistill.data.delimited import read_csv
from findistill.data.json_rows import read_jsonl
from findistill.data.text_key import text_key
from findistill.errors import UserError
from findistill.llm.answers import canonical
from findistill.llm.config import RecordedLLM
from findistill.llm.engine import Engine, Request, Response, Sampling
from findistill.llm.identity import alternatives
from findistill.llm.prompts import Template
from findistill.llm.text import without_controls

log = logging.getLogger(__name__)

NO_ANSWER = "no recorded answer"
READERS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".parquet": lambda path, _: load("findistill.data.parquet_files:read_parquet")(path)[0],
}

Row = Mapping[str, str]  # of one sample: role of a column (answer, tokens_in, tokens_out) -> cell


class RecordedEngine(RecordedLLM, Engine):
    """An annotator whose answers are read from a file."""

    def responses(self, requests: Iterable[Request], template: Template, sampling: Sampling) -> Generator[list[Response]]:
        """The recorded answers to every request; a text without any gets one response with the error `NO_ANSWER`.

        Raises:
            UserError: the file cannot be read, lacks a column, has no row that `llm.where` selects, or has answers to these
                texts of which none names a label.
        """
        recorded = self._recorded(template)
        matched = short = labelled = 0
        example = ""
        for request in requests:
            rows = recorded.get(request.id if self.id_column else text_key(request.text))
            if rows is None:
                yield [Response(request.id, request.samples[0], error=NO_ANSWER, attempts=0)]
                continue
            samples = [self._response(request.id, at, rows[at], template) for at in request.samples if at < len(rows)]
            matched += 1
            short += 0 < len(rows) <= request.samples[-1]
            labelled += sum(response.label is not None for response in samples)
            example = example or next((response.raw for response in samples if response.raw), "")
            yield samples
        if short:
            log.info("%s: %d of %d texts have fewer answers than annotate.samples", self.path, short, matched)
        if example and not labelled:
            raise UserError(
                f"llm.path={self.path}: none of the answers to {matched} texts names {template.answer}; an example: "
                f"{example[:60]!r}.\n{self.unreadable()}."
            )

    def unreadable(self) -> str:
        columns = " and ".join(f"llm.{setting}={value}" for setting, value in self._answers.items())
        return f"Check {columns}, llm.answer_line and prompt.wording"

    def failure(self, failed: int, total: int, texts: int, reason: str) -> str:
        key = self._key
        return (
            f"llm.path={self.path} has answers for {texts - failed} of {texts} texts, matched by llm.{key}={getattr(self, key)}; "
            f"annotate.max_failed={math.ceil(1000 * failed / texts) / 1000:g} leaves the others without a label."
        )

    @property
    def _labels(self) -> bool:
        """Whether the file has labels instead of answers to be parsed."""
        return bool(self.label_columns or self.label_column)

    @property
    def _key(self) -> str:
        """The setting that names the column by which rows are matched to texts."""
        return "id_column" if self.id_column else "text_column"

    @property
    def _answers(self) -> dict[str, str | list[str]]:
        """The setting that names the columns of answers or labels, with its value."""
        if self.label_columns:
            return {"label_columns": list(self.label_columns)}
        return {"label_column": self.label_column} if self.label_column else {"answer_column": self.answer_column}

    def _recorded(self, template: Template) -> dict[str, list[Row]]:
        """The rows that `llm.where` selects, by id or normal form of the text."""
        path = Path(self.path)
        if path.suffix not in READERS:
            raise UserError(f"llm.path={path}: its extension must be one of {', '.join(READERS)}.")
        try:
            rows = READERS[path.suffix](path, self.encoding)
        except UserError as error:  # the reader's error names settings of the section `data`
            raise UserError(re.sub(r"\bdata\.(path|encoding)\b", r"llm.\1", str(error))) from None
        where = dict(self.where or {})
        key_column, [answers] = str(getattr(self, self._key)), self._answers.values()
        optional = {name: getattr(self, name) for name in ("tokens_in_column", "tokens_out_column") if getattr(self, name)}
        columns = names(rows)
        for setting, wanted in {
            self._key: key_column,
            **self._answers,
            **optional,
            **{f"where.{name}": name for name in where},
        }.items():
            for column in wanted if isinstance(wanted, list) else [wanted]:
                if column not in columns and all(lookup(row, column) is None for row in rows):
                    raise UserError(
                        f"{path} has no column {column!r} (llm.{setting}); its columns are {', '.join(columns)[:300]}."
                    )
        chosen = alternatives(where)
        rows = [row for row in rows if all(as_text(lookup(row, column)) in values for column, values in chosen.items())]
        if not rows:
            raise UserError(f"llm.where={where}: no row of {path} has these values.")
        recorded: dict[str, list[Row]] = defaultdict(list)
        for cells in rows:
            key = lookup(cells, key_column)
            name = " ".join(map(as_text, key)) if isinstance(key, list) else as_text(key)  # a text may be a list of its tokens
            samples = recorded[name if self.id_column else text_key(name)]
            # The tokens of a call are counted on its first choice.
            counts = {role.removesuffix("_column"): as_text(lookup(cells, column)) for role, column in optional.items()}
            for column in answers if isinstance(answers, list) else [answers]:
                for answer in template.recorded(lookup(cells, column)):
                    if answer or not self.label_columns:  # an empty cell is an abstention, not a sample
                        samples.append({"answer": answer, **counts})
                        counts = {}
        return recorded

    def _response(self, request: str, sample: int, row: Row, template: Template) -> Response:
        tokens_in, tokens_out = _count(row.get("tokens_in")), _count(row.get("tokens_out"))
        response = Response(request, sample, raw=without_controls(row["answer"]), tokens_in=tokens_in, tokens_out=tokens_out)
        return self.read(response, template)

    def read(self, response: Response, template: Template) -> Response:
        raw = response.raw or ""
        lines = [line for line in raw.splitlines() if line.strip()]
        names_by_form = {canonical(name): name for name in template.words} if self._labels else {}
        label = names_by_form.get(canonical(raw)) or template.parse(lines[0] if lines and self.answer_line == "first" else raw)
        return replace(response, label=label, rationale=template.rationale(raw))


def _count(cell: str | None) -> int:
    return int(float(cell)) if cell and re.fullmatch(r"\d+(\.\d+)?", cell) else 0

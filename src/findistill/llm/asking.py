"""Asking an engine for what the journal lacks, within the budget, and keeping track of what was answered.

Rows become tasks when the engine has room for them, and an answered row leaves a code and a place in the journal behind,
so memory grows by a few bytes a sample.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from findistill.errors import UserError
from findistill.llm import calibration, money
from findistill.llm.demonstrations import Chosen
from findistill.llm.engine import Answer, Engine, Sampling, Task
from findistill.llm.journal import Journal, request_key
from findistill.llm.prompts import Demonstration, Template
from findistill.llm.votes import needed

if TYPE_CHECKING:
    import pandas as pd

    from findistill.settings.schema import Price

log = logging.getLogger(__name__)

CHUNK = 1024  # rows whose prompts are made at once
LACKING, FAILED, UNREADABLE = -3, -2, -1  # instead of a label's index


def key_of(
    text: str,
    shown: tuple[Demonstration, ...],
    template: Template,
    identity: Any,
    drawn: tuple[float, int] | None,
) -> int:
    """A request's key: everything that determines its answers, apart from the sample's number.

    `identity` is the llm's part of `annotation_key`; `drawn` the temperature and seed, None for exact distributions.
    """
    schema = template.schema if template.structured else None
    words = list(template.words.values())
    scoring = () if template.scoring == "sum" else (template.scoring,)
    return request_key(identity, drawn, words, template.max_text_tokens, schema, template.messages(shown, text), *scoring)


@dataclass
class Rows:
    """The rows to ask: texts first, then held-out pool rows, then texts without content."""

    ids: "pd.Series[str]"
    texts: "pd.Series[str]"
    chosen: Chosen
    extra: list[tuple[str, str, int]] = field(default_factory=list)  # id, text, the row whose demonstrations it sees

    @classmethod
    def of(cls, texts: "pd.DataFrame", held: "pd.DataFrame", chosen: Chosen) -> "Rows":
        extra = [(f"pool:{number}", text, len(texts) + number) for number, text in enumerate(held["text"])]
        return cls(texts["id"], texts["text"], chosen, extra)

    def add_content_free(self) -> None:
        """Texts without content under every distinct choice of demonstrations."""
        rows = range(len(self.texts)) if len(self.chosen.indexes) > 1 else range(1)
        self.extra += [
            (f"free:{row}:{number}", text, row) for row in rows for number, text in enumerate(calibration.CONTENT_FREE)
        ]

    def __len__(self) -> int:
        return len(self.texts) + len(self.extra)

    def chunk(self, start: int) -> list[tuple[str, str, int]]:
        """Id, text and the row of its demonstrations, of `CHUNK` rows from `start` on."""
        of_texts = slice(start, start + CHUNK)
        rows = range(start, min(start + CHUNK, len(self.texts)))
        found = list(zip(map(str, self.ids.iloc[of_texts]), self.texts.iloc[of_texts].tolist(), rows, strict=True))
        return found + self.extra[max(0, start - len(self.texts)) : max(0, start + CHUNK - len(self.texts))]


@dataclass(frozen=True)
class Desk:
    """Asks an engine for the answers that a journal lacks, within the budget."""

    engine: Engine
    template: Template
    sampling: Sampling
    samples: int
    journal: Journal
    budget: money.Budget
    price: "Price"
    most_out: int  # tokens that one answer can have; 0 where that is not bounded
    identity: Any  # the llm's part of `annotation_key`
    max_failed: float

    def key(self, text: str, shown: tuple[Demonstration, ...]) -> int:
        drawn = None if self.engine.exact(self.template) else (self.sampling.temperature, self.sampling.seed)
        return key_of(text, shown, self.template, self.identity, drawn)

    def ask(self, rows: Rows) -> "Given":
        """Have every row answered, by the journal or by the engine."""
        from tqdm import tqdm

        given = Given(self.journal, tuple(self.template.words), len(rows), self.samples)
        with tqdm(total=len(rows) * self.samples, desc="annotate", unit="answer", disable=None) as bar:
            while True:
                waiting = _Waiting(given, self.sampling.stop_at)
                tasks = self._tasks(rows, given, waiting, bar)
                # Closed whatever happens in between, so that no call goes on behind an error.
                with closing(self.engine.answers(tasks, self.template, self.sampling)) as batches:
                    for batch in batches:
                        self._take(batch, given, waiting)
                        bar.update(len(batch))
                if not waiting.refused:
                    break
                if not self.budget.allows(waiting.refused):  # with nothing in flight, what was set aside is free again
                    self._stop(given, len(rows))
        if given.recalled:
            log.info("%s answers were there already", f"{given.recalled:,}")
        self._judge(given)
        return given

    def _tasks(self, rows: Rows, given: "Given", waiting: "_Waiting", bar: Any) -> Iterator[Task]:
        """What is still to be asked, made when the engine has room for it; ends early when the budget is used up."""
        for start in range(0, len(rows), CHUNK):
            chunk = [(i, text, rows.chosen.of(row)) for i, text, row in rows.chunk(start)]
            keys = [self.key(text, shown) for _, text, shown in chunk]
            for row, ((text_id, text, shown), key) in enumerate(zip(chunk, keys, strict=True), start):
                fresh = given.recall(row, key)
                self.budget.spent += sum(answer.cost or 0.0 for answer in fresh)
                bar.update(len(fresh))
                lacking, votes = given.lacking(row), given.votes(row)
                if not needed(votes, len(lacking), self.sampling.stop_at):
                    continue
                most = 0.0 if self.budget.limit is None else self._at_most(text, shown, len(lacking))
                if not self.budget.allows(most):
                    waiting.refused = most
                    return
                self.budget.set_aside += most
                waiting.rows[text_id] = (row, key, most)
                yield Task(text_id, text, shown, lacking, votes)

    def _at_most(self, text: str, shown: tuple[Demonstration, ...], samples: int) -> float:
        """US dollars that so many samples of a text can cost."""
        characters = sum(len(each["content"]) for each in self.template.messages(shown, text))
        return money.at_most(self.price, characters, self.most_out * samples)

    def _take(self, batch: Sequence[Answer], given: "Given", waiting: "_Waiting") -> None:
        """Journal answers and note them; a text that is done makes room in the budget."""
        priced = [replace(each, cost=money.cost(self.price, each.tokens_in, each.tokens_out)) for each in batch]
        offsets = self.journal.append((waiting.rows[each.id][1], each) for each in priced)
        for answer, offset in zip(priced, offsets, strict=True):
            given.note(waiting.rows[answer.id][0], answer, offset)
            self.budget.spent += answer.cost or 0.0
        for text_id in {each.id for each in batch}:
            self.budget.set_aside -= waiting.released(text_id)

    def _stop(self, given: "Given", rows: int) -> None:
        limit = self.budget.limit
        raise UserError(
            f"annotate.max_cost_usd={limit:g}: ${self.budget.spent:.4f} is spent, and {given.done} of {rows} texts are done.\n"
            "What was answered is kept: raise it and run the same command again to go on."
        )

    def _judge(self, given: "Given") -> None:
        """Refuse annotations that too many failed calls have thinned out."""
        failed, total = given.failed(), int((given.codes != LACKING).sum())
        if failed > self.max_failed * total:
            reasons = Counter(each.error for each in given.failures(1000))
            raise UserError(
                f"{failed} of {total} answers failed, mostly with: {reasons.most_common(1)[0][0]}\n"
                "The same command asks for those again; annotate.max_failed=SHARE lets them count as no vote."
            )


class _Waiting:
    """The texts that the engine is at: id -> row, request key, dollars set aside. Bounded by the calls in flight."""

    def __init__(self, given: "Given", stop_at: int | None) -> None:
        self.given = given
        self.stop_at = stop_at
        self.rows: dict[str, tuple[int, int, float]] = {}
        self.refused = 0.0  # dollars that the first text beyond the budget would need

    def released(self, text_id: str) -> float:
        """Forget a text once nothing more of it will come; gives the dollars that were set aside for it."""
        row, _, most = self.rows[text_id]
        # Failed answers are not asked for again in this run.
        left = int((self.given.codes[row] == LACKING).sum())
        if needed(self.given.votes(row), left, self.stop_at):
            return 0.0
        self.given.done += 1
        del self.rows[text_id]
        return most


class Given:
    """The answers to all rows: a label's code and the place in the journal for each sample, no more."""

    def __init__(self, journal: Journal, names: Sequence[str], rows: int, samples: int) -> None:
        import numpy as np

        self.journal = journal
        self.names = list(names)
        self.codes = np.full((rows, samples), LACKING, np.int8)
        self.places = np.zeros((rows, samples), np.int64)
        self.done = 0  # texts that need no more
        self.recalled = 0  # answers that the journal had

    def recall(self, row: int, key: int) -> list[Answer]:
        """Note what the journal has for this row and was not noted yet; failed answers are left to be asked for again."""
        found = []
        for sample, offset in self.journal.places([key])[0].items():
            if sample < self.codes.shape[1] and self.codes[row, sample] == LACKING:
                answer = self.journal.read(offset)
                if answer.error is None:
                    self.note(row, answer, offset)
                    found.append(answer)
        self.recalled += len(found)
        self.done += bool(found) and LACKING not in self.codes[row]
        return found

    def note(self, row: int, answer: Answer, offset: int) -> None:
        if answer.error is not None:
            code = FAILED
        elif answer.label is None:
            code = UNREADABLE
        else:
            code = self.names.index(answer.label)
        self.codes[row, answer.sample] = code
        self.places[row, answer.sample] = offset

    def lacking(self, row: int) -> tuple[int, ...]:
        return tuple(sample for sample, code in enumerate(self.codes[row].tolist()) if code == LACKING)

    def votes(self, row: int) -> dict[str, int]:
        return dict(Counter(self.names[code] for code in self.codes[row].tolist() if code >= 0))

    def failed(self) -> int:
        return int((self.codes == FAILED).sum())

    def failures(self, most: int) -> Iterator[Answer]:
        for row, sample in zip(*(self.codes == FAILED).nonzero(), strict=True):
            if most == 0:
                return
            most -= 1
            yield self.journal.read(int(self.places[row, sample]))

    def answers(self, row: int) -> list[Answer]:
        """The row's answers in the order of the samples; early stopping leaves the last ones out."""
        places = zip(self.codes[row].tolist(), self.places[row].tolist(), strict=True)
        return [self.journal.read(place) for code, place in places if code != LACKING]

    def samples(self, rows: int) -> Iterator[list[Answer]]:
        return (self.answers(row) for row in range(rows))

    def scores(self) -> list[dict[str, float]]:
        """The label log-probabilities of every row, where the engine reads them."""
        return [dict(self.answers(row)[0].log_probabilities or {}) for row in range(len(self.codes))]

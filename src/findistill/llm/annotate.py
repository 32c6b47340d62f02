"""From texts to annotations: choose demonstrations, ask the engine, count the votes.

What an engine answers is journalled as it comes (`scores.jsonl`, one line a text, where it reads exact distributions;
else `samples.jsonl`, one line a sample), so that a killed run goes on where it stopped.
"""

import json
import logging
import math
import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm import calibration, demonstrations, prompts
from findistill.llm.engine import Answer, Engine, Sampling, Task
from findistill.llm.votes import Votes
from findistill.runs.files import replacing, write_json
from findistill.settings.compose import plain

if TYPE_CHECKING:
    import pandas as pd

    from findistill.settings.schema import Annotate, Config

log = logging.getLogger(__name__)

POOL = "pool:"  # before the journal's numbers of held-out pool rows
HELD_OUT = 100
FEWEST_HELD_OUT = 25

# Settings that change how fast answers come, not what they are, or that say where and not what.
_SPEED = {
    "llm": {"_target_", "name", "batch_tokens", "api_key_env", "timeout_s", "max_retries"},
    "prompt": {"name"},
    "shots": {"source"},  # the pool itself is hashed
    "annotate": {"concurrency", "limit"},
}


def annotation_key(config: "Config") -> dict[str, Any]:
    """The settings that determine the answers, apart from the texts and the pool themselves; plain values only."""
    key = {}
    for group in ("llm", "prompt", "shots", "annotate"):
        settings = plain(getattr(config, group))
        if settings.get("base_url"):
            settings["base_url"] = re.sub(r"//[^/@]*@", "//", settings["base_url"])  # a password is no part of the identity
        key[group] = {name: value for name, value in settings.items() if name not in _SPEED.get(group, ())}
    return key


def annotate(
    texts: "pd.DataFrame",
    pool: "pd.DataFrame",
    labels: LabelSet,
    config: "Config",
    folder: Path,
    engine: Engine | None = None,
) -> "pd.DataFrame":
    """Label every text `annotate.samples` times and write what was answered to `folder`.

    Args:
        texts: rows to annotate: id (unique), text, label (the source's own, or None).
        pool: labelled rows to take demonstrations from: text, label, and rationale where there is one.
        labels: the labels and their words.
        config: the resolved configuration; its llm, prompt, shots and annotate are read.
        folder: where the files go; what an interrupted call with the same settings left there is used.
        engine: the annotator; by default the one that `config.llm` describes.

    Returns:
        What `annotations.parquet` holds: id, text, label (the annotator's; None where no answer named one), gold,
        agreement, n_valid, n_samples, soft_<label>..., rationale (of the first answer for the label), and, where the
        engine reads exact distributions, p_<label>... (at temperature 1, after calibration). Rows as in `texts`.

    Raises:
        UserError: a setting does not fit the texts, the pool or the model.
    """
    import pandas as pd

    from findistill.settings.build import build

    settings = config.annotate
    _check(settings)
    if texts.empty:
        raise UserError("There are no texts to annotate: look at data.limit and data.pool.")
    ids = [str(each) for each in texts["id"]]
    if len(set(ids)) < len(ids):
        raise UserError(f"column id: {len(ids) - len(set(ids))} rows repeat the id of another row; ids must be unique.")

    template = prompts.template(config.prompt, labels)
    engine = engine or build(config.llm)  # type: ignore[arg-type]
    exact = engine.exact(template)
    kind = _calibration(settings.calibration, exact, pool, labels)
    held = _held_out(pool, labels, settings.seed) if kind == "pool" else pool.head(0)
    asked = [*ids, *(f"{POOL}{number}" for number in range(len(held)))]
    every = [*texts["text"], *held["text"]]

    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / ("scores.jsonl" if exact else "samples.jsonl")
    answers = recover(journal)
    wanted = (0,) if exact else tuple(range(settings.samples))
    lacking = [tuple(s for s in wanted if (i, s) not in answers or answers[i, s].error is not None) for i in asked]
    if any(lacking):
        if answers:
            log.info("going on after %d answers of an earlier run", len(answers))
        # Held-out rows count as asked, so they are nobody's demonstrations and see the same ones as the texts do.
        shown = demonstrations.choose(every, pool, labels, config.shots)
        tasks = [Task(*row) for row in zip(asked, every, shown, lacking, strict=True) if row[-1]]
        sampling = Sampling(settings.temperature, settings.seed, settings.concurrency)
        for batch in _journalled(engine.answers(tasks, template, sampling), journal):
            answers.update({(each.id, each.sample): each for each in batch})

    scores = None
    samples = [[answers[i, s] for s in wanted] for i in ids]
    if exact:
        raw = [answers[i, 0].log_probabilities or {} for i in asked]
        fitted = calibration.none(labels)
        if kind == "batch":
            fitted = calibration.from_texts(raw, labels)
        elif kind == "pool":
            fitted = calibration.from_labelled(raw[len(ids) :], list(held["label"]), labels)
        write_json(folder / "calibration.json", {"calibration": kind, "rows": len(held), **asdict(fitted)})
        scores = [fitted.apply(row) for row in raw[: len(ids)]]
        samples = [
            drawn(i, row, settings.samples, settings.temperature, settings.seed) for i, row in zip(ids, scores, strict=True)
        ]
    _write_samples(folder / "samples.jsonl", list(texts["text"]), samples, answers if exact else {})
    frame = pd.DataFrame(_rows(texts, ids, samples, scores, labels))
    with replacing(folder / "annotations.parquet") as aside:
        frame.to_parquet(aside, index=False)
    _tell(frame, samples, answers.values())
    return frame


def _check(settings: "Annotate") -> None:
    if settings.samples < 1:
        raise UserError(f"annotate.samples={settings.samples}: at least 1 is needed.")
    if settings.temperature < 0:
        raise UserError(f"annotate.temperature={settings.temperature}: it cannot be negative.")
    if settings.calibration not in ("none", "batch", "pool", "auto"):
        raise UserError(f"annotate.calibration={settings.calibration}: choose none, batch, pool or auto.")


def _calibration(setting: str, exact: bool, pool: "pd.DataFrame", labels: LabelSet) -> str:
    """The kind of calibration to use; `auto` is `pool` wherever that is possible, else `none`.

    Raises:
        UserError: the setting asks for what the engine or the pool does not allow.
    """
    labelled = int(pool["label"].isin(labels.names).sum()) if len(pool) else 0
    enough = labelled >= 2 * FEWEST_HELD_OUT
    if setting == "auto":
        return "pool" if exact and enough else "none"
    if setting != "none" and not exact:
        raise UserError(
            f"annotate.calibration={setting} needs label probabilities; this llm with this prompt gives answers only.\n"
            "Use an in-process llm with prompt=direct, or annotate.calibration=none."
        )
    if setting == "pool" and not enough:
        raise UserError(
            f"annotate.calibration=pool needs {2 * FEWEST_HELD_OUT} labelled texts in the pool, and it has {labelled}.\n"
            "Raise data.pool, or use annotate.calibration=none."
        )
    return setting


def _held_out(pool: "pd.DataFrame", labels: LabelSet, seed: int) -> "pd.DataFrame":
    """Labelled pool rows to calibrate on: at most `HELD_OUT`, and no more than half of them."""
    labelled = pool[pool["label"].isin(labels.names)]
    return labelled.sample(min(HELD_OUT, len(labelled) // 2), random_state=seed).reset_index(drop=True)


def _journalled(batches: Iterable[list[Answer]], journal: Path) -> Iterator[list[Answer]]:
    """Pass batches on, each safely on disk first."""
    with journal.open("a", encoding="utf-8") as lines:
        for batch in batches:
            lines.writelines(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in batch)
            lines.flush()
            os.fsync(lines.fileno())
            yield batch


def recover(journal: Path) -> dict[tuple[str, int], Answer]:
    """The answers in a journal by text id and sample; the last one counts. A line that was cut short is removed.

    Raises:
        UserError: a line other than a torn last one cannot be read.
    """
    if not journal.exists():
        return {}
    names = {each.name for each in fields(Answer)}
    answers: dict[tuple[str, int], Answer] = {}
    whole = 0
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            try:
                answer = Answer(**{name: value for name, value in json.loads(line).items() if name in names})
            except (ValueError, TypeError, AttributeError) as error:
                raise UserError(f"{journal}, line {number} is not an answer. Delete the file to annotate anew.") from error
            answers[answer.id, answer.sample] = answer
            whole += len(line)
    if whole < journal.stat().st_size:
        os.truncate(journal, whole)
    return answers


def drawn(text_id: str, row: Mapping[str, float], samples: int, temperature: float, seed: int) -> list[Answer]:
    """`samples` answers drawn from softmax(log-probabilities / temperature); temperature 0 is the most probable label.

    The draw depends on `seed`, the text's id and its distribution alone.
    """
    names = list(row)
    if temperature == 0:
        chosen = [max(names, key=row.__getitem__)] * samples
    else:
        sharpened = calibration.normalised({name: value / temperature for name, value in row.items()})
        weights = [math.exp(sharpened[name]) for name in names]
        chosen = random.Random(f"{seed}\0{text_id}").choices(names, weights, k=samples)
    return [Answer(text_id, number, label=label) for number, label in enumerate(chosen)]


def _write_samples(
    path: Path,
    texts: Sequence[str],
    samples: Sequence[Sequence[Answer]],
    scores: Mapping[tuple[str, int], Answer],
) -> None:
    """One line a sample, in the order of the texts. What an exact engine's call took stands on a text's first sample."""
    with replacing(path) as aside, aside.open("w", encoding="utf-8") as lines:
        for text, of_text in zip(texts, samples, strict=True):
            for answer in of_text:
                row = {"id": answer.id, "text": text, **asdict(answer)}
                score = scores.get((answer.id, 0))
                if score is not None:
                    row |= {"raw": answer.label, "log_probabilities": score.log_probabilities}
                    if answer.sample == 0:
                        row |= {"tokens_in": score.tokens_in, "seconds": score.seconds}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(
    texts: "pd.DataFrame",
    ids: Sequence[str],
    samples: Sequence[Sequence[Answer]],
    scores: Sequence[Mapping[str, float]] | None,
    labels: LabelSet,
) -> Iterable[dict[str, Any]]:
    gold = texts["label"] if "label" in texts else [None] * len(texts)
    for number, (text_id, text, own, answers) in enumerate(zip(ids, texts["text"], gold, samples, strict=True)):
        votes = Votes.from_answers([answer.label for answer in answers])
        reasons = (answer.rationale for answer in answers if answer.label == votes.hard and answer.rationale)
        yield {
            "id": text_id,
            "text": text,
            "label": votes.hard,
            "gold": own if isinstance(own, str) else None,
            "agreement": votes.agreement,
            "n_valid": votes.n_valid,
            "n_samples": votes.n_samples,
            **{f"soft_{name}": share for name, share in zip(labels.names, votes.soft(labels.names), strict=True)},
            "rationale": next(reasons, None) if votes.hard else None,
            **({f"p_{name}": math.exp(scores[number][name]) for name in labels.names} if scores else {}),
        }


def _tell(frame: "pd.DataFrame", samples: Sequence[Sequence[Answer]], answers: Iterable[Answer]) -> None:
    failed = sum(answer.error is not None for of_text in samples for answer in of_text)
    valid, asked = int(frame["n_valid"].sum()), int(frame["n_samples"].sum())
    made = list(answers)
    log.info(
        "annotated %d texts: %.1f%% of %d answers valid, %d calls failed, %d tokens read, %d written",
        len(frame), 100 * valid / asked, asked, failed, sum(a.tokens_in for a in made), sum(a.tokens_out for a in made),
    )  # fmt: skip

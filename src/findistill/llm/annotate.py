"""From texts to annotations: choose demonstrations, ask the engine, count the votes.

Every answer goes to a journal as it comes and is looked for there first, so a killed run goes on where it stopped, and a
larger limit, more samples or another calibration ask only for what is new. Memory does not grow with the answers: they are
read back from the journal, in the order of the texts, when the annotations are written.
"""

import json
import logging
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findistill.data.labels import LabelSet
from findistill.errors import UserError
from findistill.llm import artifact, calibration, demonstrations, money, prompts
from findistill.llm.asking import Desk, Given, Rows
from findistill.llm.demonstrations import Chosen
from findistill.llm.engine import Answer, Engine, Sampling
from findistill.llm.journal import Journal
from findistill.llm.prompts import Template
from findistill.llm.sizes import foresee
from findistill.runs.files import write_json
from findistill.runs.language_model import fingerprint
from findistill.runs.store import digest
from findistill.settings.compose import plain
from findistill.settings.schema import PACE

if TYPE_CHECKING:
    import pandas as pd

    from findistill.settings.schema import Annotate, Config

log = logging.getLogger(__name__)

HELD_OUT = 100
FEWEST_HELD_OUT = 25
RATIONALES = 4  # hand-written, shown to an LLM that is to write some

# Besides `PACE`: names, and settings that say where the texts, the pool or the members come from, which are hashed themselves.
_ELSEWHERE = {"llm": {"_target_", "name"}, "prompt": {"name"}, "shots": {"source"}, "annotate": {"limit", "members", "combine"}}


def annotation_key(config: "Config") -> dict[str, Any]:
    """The settings that determine the annotations, apart from the texts and the pool themselves; plain values only."""
    key = {}
    for group in ("llm", "prompt", "shots", "annotate"):
        settings = plain(getattr(config, group))
        if settings.get("base_url"):
            settings["base_url"] = re.sub(r"//[^/@]*@", "//", settings["base_url"])  # a password is no part of the identity
        if not settings.get("adapter"):
            settings.pop("adapter", None)
        else:
            settings["adapter"] = fingerprint(settings["adapter"])  # the same weights are the same annotator, wherever they lie
        outside = {*PACE.get(group, ()), *_ELSEWHERE.get(group, ())}
        key[group] = {name: value for name, value in settings.items() if name not in outside}
    return key


def journal_name(config: "Config") -> str:
    """The journal of all jobs that may ask the same: those of one llm, prompt, data set and choice of demonstrations.

    One of them asks at a time and the others find what it was told; jobs of other journals run beside them.
    """
    key = annotation_key(config)
    shots = key["shots"]
    if not shots["k"]:
        shots = {}
    elif shots["selection"] == "nearest":  # draws nothing
        shots = {**shots, "seed": None}
    return f"{digest([key['llm'], key['prompt'], shots, config.data.name])}.jsonl"


def _rationales_name(config: "Config") -> str:
    """The journal of what this llm says about demonstrations, whoever shows them."""
    key = annotation_key(config)
    return f"{digest([key['llm'], key['prompt']])}.jsonl"


def annotate(
    texts: "pd.DataFrame",
    pool: "pd.DataFrame",
    labels: LabelSet,
    config: "Config",
    folder: Path,
    *,
    journal: Path | None = None,
    engine: Engine | None = None,
    scoring: str = "sum",
) -> None:
    """Label every text `annotate.samples` times and write `annotations.parquet`, `samples.jsonl` and `summary.json`.

    `annotations.parquet` has a row a text, in the order of `texts`: id, text, label (the annotator's; None where no answer
    named one), gold, agreement, n_valid, n_samples, soft_<label>..., rationale (of the first answer for the label),
    confidence (mean over the answers for the label, where the server tells), and, where the engine reads exact
    distributions, p_<label>... (at temperature 1, after calibration). `samples.jsonl` has a line an answer.

    Args:
        texts: rows to annotate: id (unique), text, label (the source's own, or None).
        pool: labelled rows to take demonstrations from: text, label, and rationale where there is one.
        labels: the labels and their words.
        config: the resolved configuration; its llm, prompt, shots and annotate are read.
        folder: where the files go.
        journal: the file of all answers ever given to such requests; by default one in `folder`.
        engine: the annotator; by default the one that `config.llm` describes.
        scoring: how an engine in this process reads a label, as `Template` has it.

    Raises:
        UserError: a setting does not fit the texts, the pool or the model, or the model not the memory;
            `annotate.max_cost_usd` is spent; more than `annotate.max_failed` of the answers failed. What was answered is in
            the journal then.
    """
    from findistill.settings.build import build

    template = replace(prompts.template(config.prompt, labels), scoring=scoring)
    if engine is None:
        foresee(config.llm, config.trainer.max_memory, sampling=bool(template.steps))
        engine = build(config.llm)  # type: ignore[arg-type]
    exact = engine.exact(template)
    rows, kind, held = planned(texts, pool, labels, config, exact)

    folder.mkdir(parents=True, exist_ok=True)
    with Journal(journal or folder / "answers.jsonl") as answers:
        desk = _desk(config, engine, template, answers)
        if config.shots.rationales == "llm" and template.steps:
            with Journal(answers.path.with_name(_rationales_name(config))) as told:
                rows.chosen = rows.chosen.explained(_rationales(replace(desk, journal=told), rows.chosen))
        given = desk.ask(rows)
        if exact:
            raw = given.scores()
            fitted = _fitted(kind, rows, raw, held, labels)
            write_json(
                folder / "calibration.json", {"calibration": kind, "rows": len(held), "fitted": [asdict(f) for f in fitted]}
            )
            shared = len(fitted) == 1
            scores = [fitted[0 if shared else row].apply(of_text) for row, of_text in enumerate(raw[: len(texts)])]
            artifact.write(folder, texts, _drawn(rows, scores, given, config.annotate), labels, scores)
        else:
            artifact.write(folder, texts, given.samples(len(texts)), labels, None)
    log.info("%s", artifact.told(json.loads((folder / "summary.json").read_text(encoding="utf-8"))))


def planned(
    texts: "pd.DataFrame", pool: "pd.DataFrame", labels: LabelSet, config: "Config", exact: bool
) -> "tuple[Rows, str, pd.DataFrame]":
    """All rows to ask with their demonstrations, the kind of calibration, and the held-out pool rows it is fitted on.

    Raises:
        UserError: a setting does not fit the texts or the pool.
    """
    import pandas as pd

    check(config.annotate, texts)
    tuned = bool(getattr(config.llm, "adapter", ""))  # its prompts need no calibration, and it may have learnt from the pool
    asked = "none" if tuned and config.annotate.calibration == "auto" else config.annotate.calibration
    kind = _calibration(asked, exact, pool, labels)
    held = _held_out(pool, labels, config.annotate.seed) if kind == "pool" else pool.head(0)
    # Held-out rows count as asked, so they are nobody's demonstrations and see the same ones as the texts do.
    chosen = demonstrations.choose(pd.concat([texts["text"], held["text"]], ignore_index=True), pool, labels, config.shots)
    rows = Rows.of(texts, held, chosen)
    if kind == "contextual":
        rows.add_content_free()
    return rows, kind, held


def check(settings: "Annotate", texts: "pd.DataFrame") -> None:
    """Raise a UserError for settings and texts that cannot be annotated."""
    if settings.samples < 1:
        raise UserError(f"annotate.samples={settings.samples}: at least 1 is needed.")
    if settings.temperature < 0:
        raise UserError(f"annotate.temperature={settings.temperature}: it cannot be negative.")
    if settings.calibration not in ("none", "batch", "contextual", "pool", "auto"):
        raise UserError(f"annotate.calibration={settings.calibration}: choose none, batch, contextual, pool or auto.")
    if texts.empty:
        raise UserError("There are no texts to annotate: look at data.limit and data.pool.")
    if not texts["id"].is_unique:
        repeated = texts["id"][texts["id"].duplicated()]
        raise UserError(f"column id: {len(repeated)} rows repeat the id of another row ({repeated.iloc[0]}); ids must be unique.")


def _desk(config: "Config", engine: Engine, template: Template, journal: Journal) -> Desk:
    settings, exact = config.annotate, engine.exact(template)
    sampling = Sampling(settings.temperature, settings.seed, settings.concurrency, settings.retries, settings.stop_at)
    return Desk(
        engine=engine,
        template=engine.prepare(template, sampling),
        sampling=replace(sampling, stop_at=None) if exact else sampling,
        samples=1 if exact else settings.samples,
        journal=journal,
        budget=money.Budget(settings.max_cost_usd),
        price=config.llm.price,
        most_out=int(getattr(config.llm, "max_tokens", 0)),
        identity=annotation_key(config)["llm"],
        max_failed=settings.max_failed,
    )


def _rationales(desk: Desk, chosen: Chosen) -> dict[int, tuple[str, ...]]:
    """What the LLM says leads to the gold label of each demonstration in use, with hand-written ones as its examples.

    None where it then names another label, or gives the answer in place of a reason: the model would learn to do so.
    """
    import pandas as pd

    bare = [at for at in chosen.used() if chosen.candidates[at].rationale is None]
    found = {}
    header = desk.template.answer_header.lower()
    for label in desk.template.words:
        of_label = [at for at in bare if chosen.candidates[at].label == label]
        if not of_label:
            continue
        texts = [chosen.candidates[at].text for at in of_label]
        frame = pd.DataFrame({"id": [f"shot:{each}" for each in texts], "text": texts})
        greedy = replace(
            desk,
            template=replace(desk.template, given=label),
            sampling=replace(desk.sampling, temperature=0.0, stop_at=None),
            samples=1,
        )
        shown = demonstrations.by_hand(label, RATIONALES) if len(desk.template.steps) == 1 else demonstrations.none()
        answers = greedy.ask(Rows.of(frame, frame.head(0), shown))
        for at, [answer] in zip(of_label, answers.samples(len(of_label)), strict=True):
            said = answer.rationale or ()
            if answer.label == label and said and not any(header in part.lower() for part in said):
                found[at] = said
    log.info("%d of %d demonstrations explained by the llm", len(found), len(bare))
    return found


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


def _fitted(
    kind: str, rows: Rows, raw: Sequence[dict[str, float]], held: "pd.DataFrame", labels: LabelSet
) -> list[calibration.Calibration]:
    """One calibration, or one a text where demonstrations differ; `raw` has the extra rows' scores behind the texts'."""
    texts, extra = raw[: len(rows.texts)], raw[len(rows.texts) :]
    if kind == "contextual":
        size = len(calibration.CONTENT_FREE)
        return [calibration.from_content_free(extra[at : at + size], labels) for at in range(0, len(extra), size)]
    if kind == "batch":
        return [calibration.from_texts(texts, labels)]
    if kind == "pool":
        return [calibration.from_labelled(extra, list(held["label"]), labels)]
    return [calibration.none(labels)]


def drawn(text_id: str, row: Mapping[str, float], samples: int, temperature: float, seed: int) -> list[str]:
    """`samples` labels drawn from softmax(log-probabilities / temperature); temperature 0 is the most probable label.

    The draw depends on `seed`, the text's id and its distribution alone.
    """
    names = list(row)
    if temperature == 0:
        return [max(names, key=row.__getitem__)] * samples
    sharpened = calibration.normalised({name: value / temperature for name, value in row.items()})
    weights = [math.exp(sharpened[name]) for name in names]
    return random.Random(f"{seed}\0{text_id}").choices(names, weights, k=samples)


def _drawn(rows: Rows, scores: Sequence[dict[str, float]], given: Given, settings: "Annotate") -> Iterator[list[Answer]]:
    """Every text's samples, drawn from its calibrated distribution. What reading it took stands on the first."""
    for row, (text_id, of_text) in enumerate(zip(map(str, rows.ids), scores, strict=True)):
        [read] = given.answers(row)
        labels = drawn(text_id, of_text, settings.samples, settings.temperature, settings.seed)
        yield [replace(read, id=text_id, label=labels[0], raw=labels[0])] + [
            Answer(text_id, number, label=label, raw=label, attempts=0) for number, label in enumerate(labels[1:], 1)
        ]

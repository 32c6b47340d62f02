"""`entities.model=span_marker`: trained and run in a separate environment, by a script (`span_marker_runner`)."""

import json
import logging
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

from findistill.core.files import read_json, write_json
from findistill.core.progress import ProgressMeter
from findistill.data import training_texts
from findistill.data.spans import Marked, Span, pieces
from findistill.errors import UserError
from findistill.models.folder import check_folder
from findistill.models.forward import device_of
from findistill.models.weights import locate
from findistill.models.windows import WordWindows
from findistill.training.loop import Session
from findistill.training.recipe import Recipe
from findistill.training.trainer import Trained

log = logging.getLogger(__name__)

VARIABLE = "FINDISTILL_SPAN_MARKER"
WORDS = 100  # per window
RUNNER = "span_marker_runner.py"


def python(section: Any) -> str:
    """The interpreter of the environment that has span-marker.

    Raises:
        UserError: none is configured, or it does not exist.
    """
    named = section.python or os.environ.get(VARIABLE)
    if not named:
        raise UserError(
            "entities.model=span_marker needs a separate environment with transformers < 5; `make span-marker` creates it.\n"
            f"Then set {VARIABLE}=.venv-span-marker/bin/python, or entities.span_marker.python"
        )
    if not shutil.which(named):
        where = "entities.span_marker.python" if section.python else VARIABLE
        raise UserError(f"{where}={named}: no such program; run `make span-marker` to create the environment")
    return str(named)


def fit(section: Any, labels: Sequence[str], train: Marked, validation: Marked, session: Session) -> Trained:
    """Train it on the words of the texts; the weights of the best validation epoch are kept in `model/`.

    Raises:
        UserError: the environment is missing, or the training fails.
    """
    program, trainer = python(section), session.trainer
    recipe, epoch = Recipe.of(section, trainer).over(train)
    start = section.model or section.encoder
    where = locate(start)
    check_folder(start, where)
    aside = session.folder / "span_marker"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    request = {"labels": list(labels), "start": where, "seed": session.seed, "cpu": device_of(trainer.accelerator).type == "cpu"}
    names = ("epochs", "batch_size", "learning_rate", "max_length", "weight_decay", "warmup", "precision")
    request |= {name: getattr(recipe, name) for name in names}
    request |= {"marker_length": section.marker_length, "entity_length": section.entity_length}
    write_json(aside / "request.json", request)
    for name, part in (("train", epoch), ("validation", validation)):
        (aside / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in _rows(part, labels)), encoding="utf-8")
    _train(program, aside)
    result = read_json(aside / "history.json")
    history = result.pop("history")
    best = max(range(len(history)), key=lambda at: history[at].get("val/f1", at))
    folder = session.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    (aside / "model").rename(folder)
    shutil.rmtree(aside)
    training_texts.write(folder, [*train.texts, *validation.texts], [where])
    return Trained(folder, history, best + 1, **result)


def _train(program: str, folder: Path) -> None:
    """Run the training of `folder` in the other environment, and log its progress here.

    Raises:
        UserError: it fails.
    """
    with (
        resources.as_file(resources.files(__package__).joinpath(RUNNER)) as script,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [program, str(script), "train", str(folder)], text=True, stdout=subprocess.PIPE, stderr=errors, env=_environment()
        ) as process,
    ):
        assert process.stdout
        try:
            _show_progress(process.stdout)
        except BaseException:  # an interrupt: the training would keep running
            process.kill()
            raise
        if process.wait():
            raise UserError(f"SpanMarker training with {program} failed: {_reason(_read(errors))}")


def _show_progress(lines: Iterable[str]) -> None:
    """Log the training's output: `{"step", "steps"}` after each step, a row of its history after each epoch."""
    with ProgressMeter(desc="training", unit="step") as bar:
        for line in lines:
            row = json.loads(line)
            if "steps" in row:
                bar.total = row["steps"]
                bar.update(row["step"] - bar.n)
            else:
                validation = f", val/f1 {row['val/f1']:.4f}" if "val/f1" in row else ""
                log.info("epoch %s: train/loss %.4g%s, %.1f s", row["epoch"], row["train/loss"], validation, row["seconds"])


def _rows(part: Marked, labels: Sequence[str]) -> Iterable[dict[str, Any]]:
    cut = WordWindows.of(part.texts, WORDS, pieces)
    wording = dict(zip(labels, labels, strict=True))
    for window, text in enumerate(cut.text):
        row = cut.example(window, part.texts, part.spans[text], wording)
        yield {"words": row["tokenized_text"], "entities": row["ner"]}


def _environment() -> dict[str, str]:
    """Our environment variables, without those that would expose our packages to the other environment."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _reason(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no error message"


@dataclass(frozen=True)
class SpanMarker:
    """A model loaded by a process in the other environment."""

    process: "subprocess.Popen[str]"
    errors: IO[str]  # its standard error

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """As `SpanModel.spans`. Raises UserError if the process has ended."""
        cut = WordWindows.of(texts, WORDS, pieces)
        words = [cut.example(window, texts)["tokenized_text"] for window in range(len(cut))]
        predicted = self._asked(words) if words else []
        return cut.spans([[tuple(each) for each in own] for own in predicted], 0.0)

    def _asked(self, words: list[list[str]]) -> list[list[list[Any]]]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise UserError(f"the SpanMarker process exited: {_reason(_read(self.errors))}")
        entities: list[list[list[Any]]] = json.loads(answer)
        return entities


def open_model(section: Any, labels: Sequence[str], folder: Path | None, accelerator: str) -> SpanMarker:
    """The trained model in `folder`, or `entities.span_marker.model` as it is.

    Raises:
        UserError: the environment is missing, or the model cannot be loaded there.
    """
    program, where = python(section), str(folder or locate(section.model))
    script = str(resources.files(__package__).joinpath(RUNNER))
    command = [program, script, "predict", where, *(["--cpu"] if device_of(accelerator).type == "cpu" else [])]
    errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # read when the process ends
    process = subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment()
    )
    model = SpanMarker(process, errors)
    weakref.finalize(model, _end, process, errors)
    assert process.stdout
    while (line := process.stdout.readline()) and line.strip() != "ready":
        log.debug("%s", line)
    if not line:
        raise UserError(f"the model {where} cannot be loaded as a SpanMarker with {program}: {_reason(_read(errors))}")
    return model


def _end(process: "subprocess.Popen[str]", errors: IO[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, errors):
        if stream:
            with suppress(OSError):
                stream.close()


def _read(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()

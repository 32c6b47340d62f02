"""`stage=export`: a trained classifier as files that run with onnxruntime and tokenizers alone.

Needs `evaluate.model`. Leaves `onnx/`: float32 and 8-bit files, tokenizer, labels, a script that uses them, a card. Each
file is checked against torch on the test rows, and timed beside it. Ranges of static 8-bit come from training rows.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from findistill.errors import UserError
from findistill.runs.files import write_whole
from findistill.runs.weights import locate
from findistill.stages import inputs, scoring
from findistill.stages.export_card import RUN_SCRIPT, export_card, table

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from findistill.data import TextData
    from findistill.data.labels import LabelSet
    from findistill.learning.export import Classifier
    from findistill.learning.speed import Classify
    from findistill.runs.job import Job

log = logging.getLogger(__name__)

READS = ("data", "trainer", "evaluate", "export")


def run(job: "Job") -> None:
    from findistill.learning import export, onnx_model
    from findistill.learning.encoders import open_trained
    from findistill.learning.fit import text_length
    from findistill.runs import hardware

    config = job.config
    name = config.evaluate.model
    if not name or onnx_model.find(name):
        raise UserError(f"evaluate.model={name}: stage=export needs torch weights: a run folder, a model folder or a hub id")
    model, tokenizer = open_trained(name)
    of_torch = export.Classifier(model)
    alone = export.portable_tokenizer(tokenizer, text_length(config.trainer, model, tokenizer))
    data = inputs.dataset(job)
    tests = inputs.test_sets(job, data)
    rows, labels = next(iter(tests.values()))

    folder = job.folder / "onnx"
    export.save_companions(folder, alone, of_torch.labels)
    files = write(job, of_torch, folder, calibration_texts(job, data, tests))
    write_whole(folder / "run.py", RUN_SCRIPT)
    job.metrics["export/torch/mb"] = megabytes(name, model)
    job.metrics |= {f"export/{variant}/mb": path.stat().st_size / 1e6 for variant, path in files.items()}
    check(job, of_torch, tokenizer, files, rows, labels)
    if config.evaluate.latency:
        timed = {"torch": onnx_model.classifier(of_torch.run, alone)}
        if config.export.against:
            timed["against"] = opponent(job, config.export.against)
        measure_speed(job, timed, files, rows["text"].tolist())

    names = [each for each in ("against", "torch", *files) if f"export/{each}/mb" in job.metrics]
    numbers = table(job.metrics, names, config.export.threads)
    card = export_card(config, of_torch.labels, [path.name for path in files.values()], numbers, len(rows), hardware.processor())
    write_whole(folder / "README.md", card)
    log.info("%s\nexported: %s", numbers, folder)


def calibration_texts(job: "Job", data: "TextData", tests: "dict[str, tuple[pd.DataFrame, LabelSet]]") -> list[str]:
    """Training texts, at most `export.calibration_rows`, drawn by `data.seed`; none that stands in a test set."""
    export = job.config.export
    if "static" not in export.quantize:
        return []
    rows = inputs.drop_tested(data.split("train", "pool"), tests)
    if not len(rows):
        raise UserError(f"data={job.config.data.name} has no training texts to calibrate on; set export.quantize=[none,dynamic]")
    return rows.sample(frac=1, random_state=job.config.data.seed)["text"].head(export.calibration_rows).tolist()


def write(job: "Job", of_torch: "Classifier", folder: Path, texts: list[str]) -> dict[str, Path]:
    """The files that `export.quantize` asks for, by variant: fp32, int8_dynamic, int8_static."""
    from findistill.learning import export, onnx_model

    wanted = job.config.export.quantize
    plain = folder / export.file_name("fp32")
    export.to_onnx(of_torch, plain, job.config.export.opset)
    files = {variant: folder / export.file_name(variant) for word, variant in export.VARIANTS.items() if word in wanted}
    if "dynamic" in wanted:
        export.quantise(plain, files["int8_dynamic"])
    if "static" in wanted:
        export.quantise(plain, files["int8_static"], onnx_model.open_onnx(plain).single_inputs(texts))
    if "none" not in wanted:
        plain.unlink()
    return files


def check(
    job: "Job",
    of_torch: "Classifier",
    tokenizer: "PreTrainedTokenizerBase",
    files: dict[str, Path],
    rows: "pd.DataFrame",
    label_set: "LabelSet",
) -> None:
    """Every file, with the tokenizer and labels beside it, against the model in torch with its own, on the test rows."""
    import numpy as np

    from findistill.analysis.metrics import evaluate
    from findistill.learning.batches import tokenise
    from findistill.learning.fit import Prediction, text_length
    from findistill.learning.onnx_model import open_onnx, outputs

    texts, gold = rows["text"].tolist(), rows["label"].tolist()
    config, cache = job.config, job.store.root / "tokens"
    tokens = tokenise(tokenizer, texts, text_length(config.trainer, of_torch.model, tokenizer), cache)
    found = {"torch": (of_torch.labels, *outputs(of_torch.run, tokens))}
    for variant, path in files.items():
        opened = open_onnx(path)
        found[variant] = (opened.labels, *outputs(opened.run, opened.tokens(texts, cache=cache)))

    _, logits_of_torch, shares_of_torch = found["torch"]
    for name, (names, logits, shares) in found.items():
        key = f"export/{name}"
        columns = shares.argmax(axis=1)
        prediction = Prediction(shares, names, [names[i] for i in columns])
        probabilities, predicted = scoring.matched(prediction, label_set.names, name)
        scores = evaluate(gold, probabilities, predicted, label_set.names, prefix=key, resamples=config.evaluate.resamples)
        job.metrics |= {each: value for each, value in scores.items() if each.startswith((f"{key}/accuracy", f"{key}/macro_f1"))}
        if name != "torch":
            difference = np.abs(logits - logits_of_torch)
            job.metrics |= {
                f"{key}/label_agreement": float((columns == shares_of_torch.argmax(axis=1)).mean()),
                f"{key}/max_logit_difference": float(difference.max()),
                f"{key}/mean_logit_difference": float(difference.mean()),
            }


def opponent(job: "Job", name: str) -> "Classify":
    """The model of `export.against` in torch, to be timed; its size goes into the metrics."""
    from findistill.learning import export, onnx_model
    from findistill.learning.encoders import open_trained
    from findistill.learning.fit import text_length

    model, tokenizer = open_trained(name)
    job.metrics["export/against/mb"] = megabytes(name, model)
    alone = export.portable_tokenizer(tokenizer, text_length(job.config.trainer, model, tokenizer))
    return onnx_model.classifier(export.Classifier(model).run, alone)


def measure_speed(job: "Job", in_torch: "dict[str, Classify]", files: dict[str, Path], texts: list[str]) -> None:
    """Time all of them side by side at each number of threads, and how many times faster and smaller each file is."""
    from findistill.learning import onnx_model
    from findistill.learning.speed import measure, threads

    for number in job.config.export.threads:
        with threads(number):
            sessions = {
                variant: onnx_model.classifier(onnx_model.load(path, number), onnx_model.open_onnx(path).tokenizer)
                for variant, path in files.items()
            }
            speeds = measure({**in_torch, **sessions}, texts)
        for name, speed in speeds.items():
            job.metrics |= {f"export/{name}/threads_{number}/{key}": value for key, value in asdict(speed).items()}
        for variant in files:
            for other in in_torch:
                ratio = speeds[other].p50_ms / speeds[variant].p50_ms
                job.metrics[f"export/{variant}/threads_{number}/times_faster_than_{other}"] = ratio
    for variant in files:
        for other in in_torch:
            ratio = job.metrics[f"export/{other}/mb"] / job.metrics[f"export/{variant}/mb"]
            job.metrics[f"export/{variant}/times_smaller_than_{other}"] = ratio


def megabytes(name: str, model: "PreTrainedModel") -> float:
    """What the torch weights take on disk; of a hub id, what they take in memory."""
    files = list(Path(locate(name)).glob("*.safetensors"))
    if files:
        return sum(path.stat().st_size for path in files) / 1e6
    return sum(each.numel() * each.element_size() for each in model.parameters()) / 1e6

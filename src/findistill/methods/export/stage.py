"""`stage=export`: a trained classifier as files that run with onnxruntime and tokenizers alone.

Needs `evaluate.model`. Writes `onnx/`: float32 and 8-bit files, tokenizer, labels, a script that uses them, a card. Each
file is compared with torch on the test rows, in outputs and speed. Ranges of static 8-bit come from training rows.
"""

import logging
from dataclasses import asdict
from functools import partial
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from findistill.core.files import write_whole
from findistill.core.job import Job
from findistill.data.labels import LabelSet
from findistill.data.texts import TextData
from findistill.errors import UserError
from findistill.inference import onnx_export, onnx_model
from findistill.inference.latency import Classify, measure
from findistill.methods import rows as reading
from findistill.methods.export.card import SCORES, table, write_export_card
from findistill.methods.provenance import provenance
from findistill.models.encoders import open_trained
from findistill.models.forward import threads
from findistill.models.heads import text_length
from findistill.models.tokens import tokenise
from findistill.models.weights import weights_megabytes
from findistill.stats.alignment import align_predictions
from findistill.stats.metrics import evaluate

log = logging.getLogger(__name__)


def run(job: Job) -> None:
    config = job.config
    name = config.evaluate.model
    if not name or onnx_model.find(name):
        raise UserError(f"evaluate.model={name}: stage=export needs torch weights: a run folder, a model folder or a hub id")
    of_torch, tokenizer, portable = in_torch(job, "torch", name)
    data, tests = reading.dataset(job), reading.test_sets(job)
    rows, labels = next(iter(tests.values()))
    folder = job.folder / "onnx"
    onnx_export.save_companions(folder, portable, of_torch.labels, name)
    files = write(job, of_torch, folder, calibration_texts(job, data, tests))
    write_whole(folder / "run.py", resources.files("findistill.methods.export").joinpath("run.py.txt").read_text("utf-8"))
    check(job, of_torch, tokenizer, files, rows, labels)
    if config.evaluate.latency:
        timed = {"torch": onnx_model.classifier(of_torch.run, portable)}
        if config.export.against:
            against, _, of_against = in_torch(job, "against", config.export.against)
            timed["against"] = onnx_model.classifier(against.run, of_against)
        measure_speed(job, timed, files, rows["text"].tolist())

    names = [each for each in ("against", "torch", *files) if f"export/{each}/mb" in job.metrics]
    numbers = table(job.metrics, names, config.export.threads)
    learnt = provenance(job, without=("reference",) if "static" in job.config.export.quantize else ("reference", "data"))
    write_export_card(folder, job.whole, of_torch.labels, files, numbers, len(rows), learnt, job.metrics)
    log.info("%s\nexported: %s", numbers, folder)


def calibration_texts(job: Job, data: TextData, tests: reading.TestSets) -> list[str]:
    """At most `export.calibration_rows` training texts, sampled with `data.seed`, none of them in a test set."""
    settings = job.config.export
    if "static" not in settings.quantize:
        return []
    rows = reading.drop_test_overlap(data.split("train", "pool"), tests)
    if not len(rows):
        raise UserError(f"data={data.card.name} has no training texts to calibrate on; set export.quantize=[none,dynamic]")
    return rows.sample(frac=1, random_state=job.config.data.seed)["text"].head(settings.calibration_rows).tolist()


def write(job: Job, of_torch: onnx_export.Classifier, folder: Path, texts: list[str]) -> dict[str, Path]:
    """Write the files that `export.quantize` asks for, by variant: fp32, int8_dynamic, int8_static."""
    variants = [variant for word, variant in onnx_export.VARIANTS.items() if word in job.config.export.quantize]
    write_plain = partial(onnx_export.to_onnx, of_torch, opset=job.config.export.opset)
    files = onnx_export.write_variants(write_plain, folder, variants, texts)
    job.metrics |= {f"export/{variant}/mb": path.stat().st_size / 1e6 for variant, path in files.items()}
    return files


def check(
    job: Job, of_torch: onnx_export.Classifier, tokenizer: PreTrainedTokenizerBase, files: dict[str, Path], rows: pd.DataFrame,
    label_set: LabelSet,
) -> None:  # fmt: skip
    """Compare every file, with its exported tokenizer and labels, with the model in torch and its own, on the test rows."""
    texts, gold = rows["text"].tolist(), rows["label"].tolist()
    config, cache = job.config, job.tokens
    matching = {"model": config.evaluate.model, "label_map": config.evaluate.label_map}
    tokens = tokenise(tokenizer, texts, text_length(config.trainer, of_torch.model, tokenizer), cache)
    results = {"torch": (of_torch.labels, *onnx_model.outputs(of_torch.run, tokens))}
    for variant, path in files.items():
        opened = onnx_model.open_onnx(path)
        results[variant] = (opened.labels, *onnx_model.outputs(opened.run, opened.tokens(texts, cache=cache)))

    _, logits_of_torch, shares_of_torch = results["torch"]
    for name, (names, logits, shares) in results.items():
        key = f"export/{name}"
        predictions = [names[column] for column in shares.argmax(axis=1)]
        probabilities, predicted = align_predictions(shares, predictions, names, label_set.names, **matching)
        scores = evaluate(gold, probabilities, predicted, label_set.names, prefix=key, resamples=config.evaluate.resamples)
        job.metrics |= {f"{key}/{score}": scores[f"{key}/{score}"] for score in SCORES}
        if name != "torch":
            difference = np.abs(logits - logits_of_torch)
            job.metrics[f"{key}/label_agreement"] = float((shares.argmax(axis=1) == shares_of_torch.argmax(axis=1)).mean())
            job.metrics[f"{key}/max_logit_difference"] = float(difference.max())
            job.metrics[f"{key}/mean_logit_difference"] = float(difference.mean())


def in_torch(job: Job, role: str, name: str) -> tuple[onnx_export.Classifier, PreTrainedTokenizerBase, Tokenizer]:
    """A model, its tokenizer, and the tokenizer as exported; the model's size goes into the metrics."""
    model, tokenizer = open_trained(name)
    job.metrics[f"export/{role}/mb"] = weights_megabytes(name, model)
    portable = onnx_export.exported_tokenizer(tokenizer, text_length(job.config.trainer, model, tokenizer))
    return onnx_export.Classifier(model), tokenizer, portable


def measure_speed(job: Job, torch_models: dict[str, Classify], files: dict[str, Path], texts: list[str]) -> None:
    """Time all of them side by side at each number of threads; record how many times faster and smaller each file is."""
    pairs = list(product(files, torch_models))
    for number in job.config.export.threads:
        with threads(number):
            sessions = {
                variant: onnx_model.classifier(onnx_model.load(path, number), onnx_model.open_onnx(path).tokenizer)
                for variant, path in files.items()
            }
            speeds = measure({**torch_models, **sessions}, texts)
        for name, speed in speeds.items():
            job.metrics |= {f"export/{name}/threads_{number}/{key}": value for key, value in asdict(speed).items()}
        for variant, other in pairs:
            ratio = speeds[other].p50_ms / speeds[variant].p50_ms
            job.metrics[f"export/{variant}/threads_{number}/times_faster_than_{other}"] = ratio
    for variant, other in pairs:
        ratio = job.metrics[f"export/{other}/mb"] / job.metrics[f"export/{variant}/mb"]
        job.metrics[f"export/{variant}/times_smaller_than_{other}"] = ratio

"""Texts per second of entity models on a CPU: ours against GLiNER's own `batch_predict_entities` with the same weights.

    python benchmarks/span_prediction.py [--texts 400] [--gliner FOLDER] [--token FOLDER] [--threads 2]

Without `--gliner`, a new model on the embedded MiniLM is timed; its spans mean nothing but are compared all the same.
`--token` also times a token classifier. Needs the package gliner (pip install 'findistill[gliner]').
"""

import argparse
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from findistill.data.spans import Span
from findistill.inference import gliner, tagging
from findistill.inference.spans import stream
from findistill.models import gliner_model
from findistill.models.gliner_model import Use

NAMES = ("Orvane", "Beltrix Holdings", "Quillmark", "Tasmoor & Co.", "Nordlight Shipping", "Vexel")
FRAMES = (
    "{} reports a profit of {} million for the third quarter, above what analysts had expected",
    "Shares of {} fall {}%",
    "{}: payout cut by {}%, outlook for next year withdrawn as orders from abroad dry up and costs rise faster than prices",
)
ROUNDS = 2


def headlines(count: int) -> list[str]:
    draw = random.Random(0)
    return [draw.choice(FRAMES).format(draw.choice(NAMES), draw.randrange(100)) for _ in range(count)]


def timed(name: str, mark: Callable[[list[str]], Any], texts: list[str]) -> tuple[Any, float]:
    """The output of `mark`, and its texts per second in the best of `ROUNDS` rounds."""
    mark(texts[:16])
    best = 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        marked_spans = mark(texts)
        best = max(best, len(texts) / (time.perf_counter() - started))
    print(f"{name:<42} {best:8.1f} texts/s", flush=True)
    return marked_spans, best


def same(spans: list[list[Span]], others: list[list[Span]]) -> str:
    return f"the same spans in {sum(one == other for one, other in zip(spans, others, strict=True))} of {len(spans)} texts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gliner", help="model folder of stage=entities entities.model=gliner")
    parser.add_argument("--token", help="model folder of stage=entities entities.model=token")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    texts = headlines(arguments.texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.gliner or f"{scratch}/gliner")
        if not arguments.gliner:
            torch.manual_seed(0)
            use = Use(("company",), ("company",), 0.5, 128)
            gliner_model.save(folder, gliner_model.begin("embedded:minilm_l6", max_width=12, max_length=128), use)
        use = gliner_model.use_of(folder) or Use(("company",), ("company",), 0.5, 128)
        plain = gliner_model.open_gliner(folder)

        def own(texts: list[str]) -> list[list[Span]]:
            rows = plain.batch_predict_entities(texts, list(use.prompts), threshold=use.threshold)
            return [sorted(Span(each["start"], each["end"], use.labels[0]) for each in row) for row in rows]

        expected, base = timed("GLiNER's batch_predict_entities", own, texts)
        models = {"ours, torch": gliner.Gliner(plain, use)}
        for variant, file in gliner.export(folder, Path(scratch) / "onnx", 19).items():
            models[f"ours, ONNX {variant}"] = gliner.open_model(file.parent, use, "cpu", file.name)
        for name, model in models.items():
            spans, speed = timed(name, lambda texts, model=model: [*stream(model, texts)], texts)
            print(f"{'':<42} {speed / base:8.2f} times, {same(spans, expected)}")
        if arguments.token:
            of_torch = tagging.open_model(arguments.token, "cpu")
            expected, base = timed("token classifier, torch", lambda texts: [*stream(of_torch, texts)], texts)
            for variant, file in tagging.export(arguments.token, Path(scratch) / "tagger", 18).items():
                opened = tagging.open_onnx(file, arguments.threads)
                spans, speed = timed(
                    f"token classifier, ONNX {variant}", lambda texts, model=opened: [*stream(model, texts)], texts
                )
                print(f"{'':<42} {speed / base:8.2f} times, {same(spans, expected)}")


if __name__ == "__main__":
    main()

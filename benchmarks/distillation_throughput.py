"""Distillation with cached teacher outputs against TextBrewer's GeneralDistiller, which runs the teacher in every step.

Both use the same teacher (12 layers, width 768), student (4 layers, width 312), texts, batches (grouped by length), terms
(hidden states of 5 layers with trained projections, attention probabilities of 4, soft cross-entropy), optimizer and
precision (float32); the weights are random, which are as slow as trained ones. TextBrewer runs in a separate environment,
which sees this one's torch and transformers; there, the values of all terms on one batch are compared as well.

    python benchmarks/distillation_throughput.py [--steps 20] [--repeats 3] [--env FOLDER]

Exits with 1 below 2.5 times TextBrewer's examples per second, or if a term differs by more than 1e-5.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait halve a shared machine's speed
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pandas as pd
from demo_corpus import generate
from peers import peer_python
from rates import print_rates

from findistill.core import hardware
from findistill.core.store import Store
from findistill.data.config import Data
from findistill.data.labels import LabelSet
from findistill.data.loading import load as load_data
from findistill.errors import UserError
from findistill.models.batches import LengthGroupedBatches, pad
from findistill.models.config import Encoder
from findistill.models.tokens import Tokens, tokenise
from findistill.models.weights import locate, quiet
from findistill.training.config import TeacherDistill, Trainer, term_nodes
from findistill.training.distillation import distil
from findistill.training.loop import Session
from findistill.training.trainer import Examples

REQUIREMENTS = ["textbrewer==0.2.1.post1", "tensorboardX==2.6.4"]
BATCH, LENGTH, RATE = 32, 64, 5e-5
LAYERS = {0: 0, 1: 3, 2: 6, 3: 9, 4: 12}  # student: teacher; 0 are the embeddings
NAMES = ("negative", "neutral", "positive")
DISTILL = TeacherDistill(objective="tinybert", terms={"hidden": 1.0, "attention_probs": 1.0, "soft_ce": 1.0})


def examples(n: int) -> tuple[Examples, str]:
    """The first n training rows of real tweets, or of the generated demo corpus."""
    try:
        data = load_data(Data(_target_="findistill.data.sources.tfns.read", name="tfns"))
    except UserError:
        return Examples.from_frame(pd.DataFrame(generate(n)), LabelSet(NAMES)), "demo"
    return Examples.from_frame(data.split("train").head(n), data.labels), data.card.name


def write_models(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(locate("embedded:minilm_l6"))
    for name, sizes in {"teacher": (12, 768, 3072), "student": (4, 312, 1200)}.items():
        torch.manual_seed(len(name))
        config = BertConfig(
            num_hidden_layers=sizes[0], hidden_size=sizes[1], intermediate_size=sizes[2], num_attention_heads=12,
            id2label=dict(enumerate(NAMES)), label2id={label: i for i, label in enumerate(NAMES)},
        )  # fmt: skip
        with quiet():
            BertForSequenceClassification(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def ours(folder: Path, train: Examples, precision: str = "32") -> tuple[float, float]:
    """Seconds of an epoch, and of the teacher's pass if this call runs it."""
    store, passes = Store(folder / "store"), [0.0]

    def artifact(kind: str, key: dict[str, Any], make: Any) -> Path:
        def timed(target: Path) -> None:
            started = time.perf_counter()
            make(target)
            passes[0] += time.perf_counter() - started

        return store.get(kind, key, timed)

    none = Examples([], [], np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    student = Encoder(name="student", model=str(folder / "student"), epochs=1, batch_size=BATCH, max_length=LENGTH)
    session = Session(Trainer(precision=precision, learning_rate=RATE, accelerator="cpu"), folder / "run")
    trained = distil(
        student, DISTILL, LabelSet(NAMES), train, none, folder / "teacher", session, artifact=artifact, root=store.root
    )
    return trained.train_s, passes[0]


# -- TextBrewer, in a separate environment -----------------------------------------------------------------------------


def theirs(python: Path, folder: Path, rows: int) -> dict[str, Any]:
    """Seconds of an epoch and the largest difference in a term, from `peer` in the other environment."""
    done = subprocess.run(
        [python, "-W", "ignore", __file__, "--peer", folder, "--rows", str(rows)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"TextBrewer failed:\n{done.stderr[-3000:]}")
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def peer(folder: Path, rows: int) -> dict[str, Any]:
    import logging

    import textbrewer
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification, get_linear_schedule_with_warmup

    with quiet():
        teacher, student = (
            BertForSequenceClassification.from_pretrained(folder / name, attn_implementation="eager", dtype=torch.float32)
            for name in ("teacher", "student")
        )
    train, _ = examples(rows)
    tokens = tokenise(AutoTokenizer.from_pretrained(folder / "student"), train.texts, LENGTH)
    batches = [pad(tokens, batch) for batch in LengthGroupedBatches(tokens.lengths, BATCH, seed=0)]

    def adaptor(batch: dict[str, Any], output: Any) -> dict[str, Any]:
        return {
            "logits": output.logits, "hidden": output.hidden_states, "attention": output.attentions,
            "inputs_mask": batch["attention_mask"],
        }  # fmt: skip

    matches = [
        {"layer_T": large, "layer_S": small, "feature": "hidden", "loss": "hidden_mse", "weight": 1,
         "proj": ["linear", 312, 768]} for small, large in LAYERS.items()
    ] + [
        {"layer_T": large - 1, "layer_S": small - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for small, large in LAYERS.items() if small
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        distiller = textbrewer.GeneralDistiller(
            train_config=textbrewer.TrainingConfig(device="cpu", output_dir=scratch),
            distill_config=textbrewer.DistillationConfig(temperature=1, intermediate_matches=matches),
            model_T=teacher, model_S=student, adaptor_T=adaptor, adaptor_S=adaptor,
        )  # fmt: skip
        logging.disable()
        distiller.save_and_callback = lambda *_: None  # no checkpoint is written on our side either
        difference = largest_difference(distiller, batches[len(batches) // 2], tokens)
        decayed = [p for p in student.parameters() if p.ndim > 1]
        free = [p for p in student.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}], lr=RATE, fused=True
        )
        schedule = {"num_warmup_steps": len(batches) // 10, "num_training_steps": len(batches)}
        teacher.eval()
        student.train()
        started = time.perf_counter()
        with distiller:
            distiller.train(
                optimizer, batches, num_epochs=1, scheduler_class=get_linear_schedule_with_warmup, scheduler_args=schedule,
                max_grad_norm=1.0, output_hidden_states=True, output_attentions=True,
            )  # fmt: skip
        return {"seconds": time.perf_counter() - started, "difference": difference}


def largest_difference(distiller: Any, batch: dict[str, Any], tokens: Tokens) -> float:
    """The largest relative difference between our terms and TextBrewer's on one batch: same projections, no dropout."""
    import torch

    from findistill.models.features import Anatomy, read
    from findistill.training.losses.base import Pair
    from findistill.training.losses.weighted import WeightedTerms

    teacher, student = distiller.model_T.eval(), distiller.model_S.eval()
    pair = Pair(Anatomy.of(student, "student"), Anatomy.of(teacher, "teacher"))
    terms = WeightedTerms.build(term_nodes(DISTILL.terms), pair, ("intermediate", "prediction"))
    for projection in distiller.projs[: len(LAYERS)]:
        projection.load_state_dict(terms.terms["hidden"].projection.state_dict())
    wanted = terms.student_arrays, terms.teacher_arrays
    shown = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        outputs = [distiller.adaptor_S(batch, model(**batch, **shown)) for model in (student, teacher)]
        for output in outputs:
            output["logits"] = [output["logits"]]
        _, values = distiller.compute_loss(*outputs)
        results = terms(read(student, batch, wanted[0]), read(teacher, batch, wanted[1]), batch["attention_mask"], torch.zeros(1))
    for model in (teacher, student):
        model.set_attn_implementation("eager")
    expected = {"soft_ce": values["unweighted_kd_loss"]}
    for name, feature in (("hidden", "hidden"), ("attention_probs", "attention")):
        expected[name] = sum(value for key, value in values.items() if key.startswith(f"unweighted_{feature}"))
    return max(float((results[name] - value).abs() / value.abs()) for name, value in expected.items())


# -- the comparison ----------------------------------------------------------------------------------------------------


def compare(steps: int, repeats: int, env: Path) -> int:
    train, name = examples(steps * BATCH)
    python = peer_python(env, "textbrewer", REQUIREMENTS)
    results: dict[str, list[float]] = {"findistill": [], "TextBrewer": []}
    difference = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_models(folder)
        _, passed = ours(folder, train)  # writes the cache, warms up the kernels
        for _ in range(repeats):
            results["findistill"].append(ours(folder, train)[0])
            peer = theirs(python, folder, len(train))
            results["TextBrewer"].append(peer["seconds"])
            difference = max(difference, peer["difference"])
        auto = hardware.precision("auto", "cpu")
        quick = ours(folder, train, auto)[0] if auto != "32" else None
        stored = sum(path.stat().st_size for path in folder.rglob("*.bin")) / len(train)
    print(f"12x768 to 4x312, {name}, {len(train)} examples, batch {BATCH}, length {LENGTH}, float32, {hardware.describe()}")
    ratio = print_rates(results, len(train), "examples")
    print(f"the cache, written once: {len(train) / passed:.1f} examples/s, {stored / 1024:.0f} KB per example")
    if quick:
        print(f"findistill with trainer.precision=auto ({auto}): {len(train) / quick:.1f} examples/s")
    print(f"ratio {ratio:.2f}; largest relative difference of a term {difference:.1e}")
    return 0 if ratio >= 2.5 and difference <= 1e-5 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--env", help="folder of TextBrewer's virtual environment; a temporary one by default")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(Path(options.peer), options.rows)))
        return 0
    if options.env:
        return compare(options.steps, options.repeats, Path(options.env))
    with tempfile.TemporaryDirectory() as folder:
        return compare(options.steps, options.repeats, Path(folder))


if __name__ == "__main__":
    sys.exit(main())

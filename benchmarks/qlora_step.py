"""A training step of `stage=qlora` against a bare peft + bitsandbytes loop over the same batches, and peak training memory.

Both tune SmolLM2-135M in NF4 on prompts from the demo corpus, 16 at a time, with the same adapter, optimizer and clipping.
`bare` computes the same thing as findistill in ten lines of torch: the loss at the answer's positions. `recipe` is the loop
found in tutorials: `prepare_model_for_kbit_training`, and logits at every position. Steps are timed from batch to batch,
including the time to build the batch; repeats alternate, and medians are compared. Exits with 1 above 1.05 times the bare loop.

Then prints the peak memory with weights in NF4, int8 and not quantised, each measured in a separate process.

    python benchmarks/qlora_step.py [--steps 12] [--repeats 3] [--model embedded:smollm2]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from findistill.config.compose import data_config
from findistill.config.groups import config_dir
from findistill.core import hardware
from findistill.core.hardware import peak_memory_mb
from findistill.data.loading import load
from findistill.llm.in_process import InProcessEngine
from findistill.llm.prompts import template
from findistill.models.batches import LengthGroupedBatches
from findistill.models.causal_lm import compute_dtype, load_base
from findistill.models.weights import locate
from findistill.training.config import QLoRA, Trainer
from findistill.training.loop import Session, Training
from findistill.training.lora import Prompts, WordClassifier, add_adapter, padded
from findistill.training.recipe import Recipe

BATCH, LIMIT = 16, 1.05
TRAINER = Trainer(accelerator="cpu" if not torch.cuda.is_available() else "gpu", devices=1)
SETTINGS = QLoRA(epochs=1, batch_size=BATCH)


class Material:
    """Enough prompts from the demo corpus for `steps` steps, and the label words."""

    def __init__(self, model: str, steps: int) -> None:
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("config", overrides=["prompt=direct"])
        data = load(data_config("demo"))
        rows = data.frame[data.frame["label"].notna()].head(steps * BATCH)
        engine = InProcessEngine(model=model)
        prompts, self.words = engine.encode(rows["text"].tolist(), template(config.prompt, data.labels))
        hard = np.asarray([data.labels.index(label) for label in rows["label"]])
        self.end = engine.tokenizer.eos_token_id
        self.prompts = Prompts.of(prompts, hard, len(data.labels.names), self.end)
        self.answers = padded([[*word, self.end] for word in self.words])

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        for indexes in LengthGroupedBatches(self.prompts.tokens.lengths, BATCH, seed=0):
            yield self.prompts[indexes]


class TimedClassifier(WordClassifier):
    """Records when each step ends."""

    def on_train_start(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def ours(model: str, material: Material, quantization: str = "nf4") -> list[float]:
    """Seconds of each step except the first."""
    base = load_base(model, "auto", quantization)
    add_adapter(base, SETTINGS)
    base.train()
    recipe = Recipe.of(SETTINGS, TRAINER, max_length=0, precision="32-true")
    with tempfile.TemporaryDirectory() as folder:
        module = TimedClassifier(base, material.words, material.end, recipe)
        Training(module, material.prompts, None, recipe, Session(TRAINER, Path(folder))).run()
    return np.diff(module.ends).tolist()


def bare(model: str, material: Material, *, recipe: bool) -> list[float]:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = compute_dtype("auto")
    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    device = hardware.device()
    base = AutoModelForCausalLM.from_pretrained(
        locate(model), quantization_config=quantised, dtype=dtype, device_map={"": device}
    )
    if recipe:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    else:  # as findistill does: torch would copy the vocabulary matrix for each row of a batch that is not contiguous
        base.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    lora = LoraConfig(r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, lora_dropout=SETTINGS.dropout, task_type="CAUSAL_LM")
    tuned = get_peft_model(base, lora).train()
    learning = [value for value in tuned.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=SETTINGS.learning_rate, fused=True)
    ids, known = (value.to(device) for value in material.answers)
    ends = []
    for batch in material.batches():
        batch = {name: value.to(device) for name, value in batch.items()}
        answers, counted = ids[batch["hard"]], known[batch["hard"]]
        inputs = torch.cat([batch["input_ids"], answers], 1)
        mask = torch.cat([batch["attention_mask"], counted.long()], 1)
        if recipe:
            labels = torch.cat([torch.full_like(batch["input_ids"], -100), answers.masked_fill(counted == 0, -100)], 1)
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = tuned(input_ids=inputs, attention_mask=mask, labels=labels).loss
        else:
            logits = tuned(input_ids=inputs, attention_mask=mask, logits_to_keep=answers.shape[1] + 1).logits[:, :-1].float()
            loss = -(logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0] * counted).sum() / counted.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(loss)
        ends.append(time.perf_counter())
    return np.diff(ends).tolist()


def memory(model: str, quantization: str) -> float:
    """Peak MB of a process that only trains with this quantization."""
    command = [sys.executable, __file__, "--model", model, "--steps", "3", "--peak", quantization]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="embedded:smollm2")
    parser.add_argument("--peak", choices=["nf4", "int8", "none"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    material = Material(options.model, options.steps)
    if options.peak:
        ours(options.model, material, options.peak)
        print(torch.cuda.max_memory_allocated() / 1024**2 if torch.cuda.is_available() else peak_memory_mb())
        return 0
    seconds: dict[str, list[float]] = {"findistill": [], "bare": [], "recipe": []}
    for _ in range(options.repeats):
        seconds["findistill"] += ours(options.model, material)
        seconds["bare"] += bare(options.model, material, recipe=False)
        seconds["recipe"] += bare(options.model, material, recipe=True)
    tokens = int(material.prompts.tokens.lengths.mean())
    print(f"{options.model}, NF4, batch {BATCH} x {tokens} tokens on average, {hardware.describe()}")
    for who, values in seconds.items():
        print(f"{who:12} {statistics.median(values):6.2f} s per step  ({min(values):.2f} to {max(values):.2f})")
    step = {who: statistics.median(values) for who, values in seconds.items()}
    ratio = step["findistill"] / step["bare"]
    print(f"ratio to the bare loop {ratio:.2f}, to the recipe {step['findistill'] / step['recipe']:.2f}")
    for quantization in ("nf4", "int8", "none"):
        print(f"peak memory, {quantization:5} {memory(options.model, quantization):7.0f} MB")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())

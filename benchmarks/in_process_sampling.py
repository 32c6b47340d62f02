"""Chain-of-thought samples per second: the in-process engine against transformers' plain `generate` on the same prompts.

Six worked examples per prompt, eight samples per text, temperature 0.5, SmolLM2, the same dtype. `generate` gets left-padded
batches, samples from the full distribution (no top-k) with `num_return_sequences`, and stops each row at the label with
stop strings; of several batch sizes (`--peer-batches 2 4 8 16`), the one that is fastest on the first texts is used.
With `--repeats` the two alternate, and their medians are compared; one repeat takes about eight minutes on two CPU cores.
A chi-square test then checks whether their labels come from the same distribution.

    python benchmarks/in_process_sampling.py [--texts 64] [--samples 8] [--repeats 1] [--batch-tokens 4096]

Texts are headlines and posts from the demo corpus. Exits with 1 if the engine is less than 3 times as fast, or if the
labels differ (p < 0.001).
"""

import argparse
import os
import sys
import time
from collections import Counter
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait halve a shared machine's speed
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rates import print_rates
from scipy.stats import chi2_contingency

from findistill.core import hardware
from findistill.data.loading import load
from findistill.data.sources.demo import DemoData
from findistill.llm.engine import Request, Response, Sampling
from findistill.llm.in_process import InProcessEngine
from findistill.llm.language_model import STEP_TOKENS
from findistill.llm.prompts import Demonstration, Template

TEMPERATURE = 0.5
SHOWN = (
    Demonstration("Harrow Foods cuts full-year outlook as costs bite", "negative", ("A lower outlook points to lower profits.",)),
    Demonstration("Lindqvist to move its head office to Malmö", "neutral", ("A new address changes nothing about earnings.",)),
    Demonstration("Orders at Pellar Robotics rise 40 percent", "positive", ("Many more orders mean higher sales ahead.",)),
    Demonstration("Regulator opens probe into Castell Bank", "negative", ("A probe may end in fines and costs the bank trust.",)),
    Demonstration("Tarn Energy wins ten-year supply contract", "positive", ("A long contract makes its income safer.",)),
    Demonstration("Board of Ovella meets on 14 May", "neutral", ("It is a routine date without any news.",)),
)


def template(labels: dict[str, str]) -> Template:
    instruction = (
        "You are an experienced investor. For each text, first write one short opinion on what it means for the share "
        "price of the companies it is about, then give the sentiment."
    )
    return Template(instruction, labels, steps=("Opinion:",))


class Generate:
    """The obvious implementation with `generate`: returns the label named in each sample, or None."""

    def __init__(self, engine: InProcessEngine, form: Template, prompts: list[list[int]], samples: int) -> None:
        self.engine, self.form, self.samples = engine, form, samples
        self.prompts = sorted(prompts, key=len)
        self.settings = {
            "do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "num_return_sequences": samples,
            "max_new_tokens": STEP_TOKENS + 8, "pad_token_id": engine.pad_id, "tokenizer": engine.tokenizer,
            "stop_strings": [f"{form.answer_header} {word}" for word in form.words.values()],
        }  # fmt: skip

    def run(self, texts: int, limit: int | None = None) -> list[str | None]:
        parsed: list[str | None] = []
        prompts = self.prompts[:limit]
        with torch.inference_mode():
            for start in range(0, len(prompts), texts):
                ids, mask = self.engine.padded(prompts[start : start + texts])
                out = self.engine.lm.generate(input_ids=ids, attention_mask=mask, **self.settings)
                decoded = self.engine.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
                parsed += [self.form.parse(each) for each in decoded]
        return parsed


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--peer-batches", type=int, nargs="+", default=[16], help="batch sizes of generate, in texts")
    options = parser.parse_args()

    data = load(DemoData(_target_="findistill.data.sources.demo.read", name="demo"))
    form = template(data.labels.words("sentiment"))
    rows = data.split("train").head(options.texts)
    tasks = [
        Request(str(i), text, SHOWN, tuple(range(options.samples))) for i, text in zip(rows["id"], rows["text"], strict=True)
    ]
    engine = InProcessEngine(model="embedded:smollm2", batch_tokens=options.batch_tokens)
    # The engine prefills the first header; `generate` gets exactly the same tokens.
    prompts = [prompt + engine.ids(form.steps[0]) for prompt in engine.prompt_ids(tasks, form)[0]]
    peer = Generate(engine, form, prompts, options.samples)

    def ours(seed: int) -> list[Response]:
        return [each for batch in engine.responses(tasks, form, Sampling(TEMPERATURE, seed)) for each in batch]

    next(iter(engine.responses(tasks[:2], form, Sampling(TEMPERATURE, 0))))  # loads the model and warms it up
    peer.run(1, 1)  # prepares the stop strings
    trial = min(len(tasks), max(options.peer_batches))
    sizes = options.peer_batches
    best = min(sizes, key=lambda size: timed(peer.run, size, trial)[0]) if len(sizes) > 1 else sizes[0]

    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {"findistill": [], "generate": []}
    labels: dict[str, Counter[str]] = {"findistill": Counter(), "generate": Counter()}
    unread, written = 0, 0
    for repeat in range(options.repeats):
        took, answers = timed(ours, repeat)
        seconds["findistill"].append(took)
        labels["findistill"].update(answer.label for answer in answers if answer.label)
        written += sum(answer.tokens_out for answer in answers)
        took, named = timed(peer.run, best)
        seconds["generate"].append(took)
        labels["generate"].update(label for label in named if label)
        unread += named.count(None)

    count = len(tasks) * options.samples
    lengths = [len(prompt) for prompt in prompts]
    print(
        f"SmolLM2-135M, {len(tasks)} texts x {options.samples} samples, {len(SHOWN)} worked examples, prompts of "
        f"{min(lengths)} to {max(lengths)} tokens, {written / count / options.repeats:.0f} generated per sample, "
        f"{engine.lm.dtype}, {hardware.describe()}; generate: {best} texts per batch"
    )
    ratio = print_rates(seconds, count, "samples", digits=2)
    print(f"ratio {ratio:.2f}")
    table = [[labels[who][name] for name in form.words] for who in labels]
    columns = [column for column in zip(*table, strict=True) if sum(column)]
    test = chi2_contingency(list(zip(*columns, strict=True)))
    for who, row in zip(labels, table, strict=True):
        print(f"{who:12} " + ", ".join(f"{name} {value}" for name, value in zip(form.words, row, strict=True)))
    print(f"{unread} samples of generate name no label; chi-square {test.statistic:.2f}, {test.dof} df, p = {test.pvalue:.3f}")
    return 0 if ratio >= 3 and test.pvalue >= 0.001 else 1


if __name__ == "__main__":
    sys.exit(main())

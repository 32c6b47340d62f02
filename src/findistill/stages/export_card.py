"""What goes beside exported files for people: the script that uses them, and the card with what was measured."""

from collections.abc import Mapping, Sequence

from findistill import __version__
from findistill.runs.job import git_commit
from findistill.settings.schema import Config

RUN_SCRIPT = '''\
"""Label texts: python run.py model.onnx "Profit rose" "Shares fell" (needs onnxruntime and tokenizers only)."""
import json
import sys
from pathlib import Path

import onnxruntime
from tokenizers import Tokenizer

file, *texts = sys.argv[1:]
folder = Path(__file__).parent
labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
rows = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)  # truncates and pads
inputs = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}
for text, shares in zip(texts, onnxruntime.InferenceSession(folder / file).run(["probabilities"], inputs)[0]):
    print(f"{labels[shares.argmax()]}\\t{shares.max():.3f}\\t{text}")
'''


def table(metrics: Mapping[str, float], names: Sequence[str], threads: Sequence[int]) -> str:
    """The measured numbers of `names` (torch, fp32, ...) as a Markdown table; times only where they were taken."""
    heads = ["", "MB", "labels as torch", "largest logit difference", "accuracy"]
    for number in threads:
        which = f"{number} thread{'s' * (number > 1)}"
        heads += [f"p50 ms, {which}", f"p95 ms, {which}", f"texts/s at 32, {which}"]
    rows = []
    for name in names:

        def cell(key: str, form: str, name: str = name) -> str:
            value = metrics.get(f"export/{name}/{key}")
            return "" if value is None else format(value, form)

        row = [
            name,
            cell("mb", ",.2f"),
            cell("label_agreement", ".2%"),
            cell("max_logit_difference", ".2g"),
            cell("accuracy", ".3f"),
        ]
        for number in threads:
            at = f"threads_{number}"
            row += [cell(f"{at}/p50_ms", ".2f"), cell(f"{at}/p95_ms", ".2f"), cell(f"{at}/texts_per_s", ",.0f")]
        rows.append(row)
    kept = [column for column in range(len(heads)) if not column or any(row[column] for row in rows)]
    lines = [[heads[column] for column in kept], ["---", *["---:"] * (len(kept) - 1)]]
    lines += [[row[column] for column in kept] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def export_card(config: Config, labels: Sequence[str], files: Sequence[str], numbers: str, rows: int, processor: str) -> str:
    """The README.md of an exported folder."""
    against = f"`against` is {config.export.against}, in torch.\n" if config.export.against else ""
    calibrated = (
        f"The ranges of static 8-bit come from at most {config.export.calibration_rows:,} training texts of {config.data.name}.\n"
        if "static" in config.export.quantize
        else ""
    )
    made_by = f"findistill {__version__} (commit {git_commit() or 'unknown'})"
    return f"""# ONNX classifier: {", ".join(labels)}

The model {config.evaluate.model} as ONNX (opset {config.export.opset}), exported by {made_by}.
It needs onnxruntime and tokenizers:

```
python run.py {files[0]} "Profit rose for the third quarter in a row."
```

`tokenizer.json` truncates and pads, `labels.json` names the columns of the output `probabilities`.

Measured on the {rows:,} test texts of {config.data.name}, on the CPU ({processor}). `torch` is the model this comes from,
in float32. Times are text in, probabilities out, tokenising included; p50 and p95 are of one text at a time.

{numbers}

{against}{calibrated}"""

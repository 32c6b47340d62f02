"""The card of exported files, with the measurements."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from findistill.core import hardware
from findistill.methods.provenance import card_of
from findistill.report.licences import Provenance
from findistill.report.model_card import write_model_card
from findistill.report.tables import markdown

QUALITY = {  # title: key and format
    "MB": ("mb", ",.2f"),
    "labels as torch": ("label_agreement", ".2%"),
    "largest logit difference": ("max_logit_difference", ".2g"),
    "accuracy": ("accuracy", ".3f"),
}
SCORES = (  # of each file
    "accuracy", "accuracy_lo", "accuracy_hi", "macro_f1", "macro_f1_lo", "macro_f1_hi", "majority_share", "labels_predicted", "n",
)  # fmt: skip
SPEED = {"p50 ms": ("p50_ms", ".2f"), "p95 ms": ("p95_ms", ".2f"), "texts/s at 32": ("texts_per_s", ",.0f")}


def table(metrics: Mapping[str, float], names: Sequence[str], threads: Sequence[int]) -> str:
    """The measured numbers of `names` (torch, fp32, ...) as a Markdown table; times only if measured."""
    columns = dict(QUALITY)
    for number in threads:
        which = f"{number} thread{'s' * (number > 1)}"
        columns |= {f"{title}, {which}": (f"threads_{number}/{key}", form) for title, (key, form) in SPEED.items()}

    def cell(name: str, key: str, form: str) -> str:
        value = metrics.get(f"export/{name}/{key}")
        return "" if value is None else format(value, form)

    cells = {title: [cell(name, key, form) for name in names] for title, (key, form) in columns.items()}
    return markdown(pd.DataFrame({"": names} | {title: column for title, column in cells.items() if any(column)})).rstrip()


def write_export_card(
    folder: Path, config: Any, labels: Sequence[str], files: Mapping[str, Path], numbers: str, rows: int, learnt: Provenance,
    metrics: Mapping[str, float],
) -> Path:  # fmt: skip
    """Write the README.md of an exported folder, with the scores of its first file.

    Args:
        files: by variant.
        numbers: the measurements, from `table`.
        metrics: of the job.
    """
    export, (first, *_) = config.export, files
    onnx_files = [path.name for path in files.values()]
    base = card_of(config.evaluate.model).get("base_model") or config.evaluate.model
    return write_model_card(
        folder, "onnx", name="ONNX classifier", data=config.data, learnt=learnt, library="onnx", tags=["onnx"],
        base_model=base, metrics=metrics, prefix=f"export/{first}", labels=labels, onnx_files=onnx_files, numbers=numbers,
        rows=rows, opset=export.opset, against=export.against, processor=hardware.processor(),
        calibration_rows=export.calibration_rows if "static" in export.quantize else 0,
    )  # fmt: skip

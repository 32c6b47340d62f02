"""Settings of the ONNX export."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Export:
    """stage=export: `evaluate.model` as ONNX files."""

    # none: float32; dynamic: 8-bit, activations scaled in every call; static: 8-bit, ranges from training texts
    quantize: list[str] = setting(["none", "dynamic", "static"], choices=("none", "dynamic", "static"), distinct=True)
    calibration_rows: int = setting(256, ge=1)  # training texts that static's ranges come from
    opset: int = setting(18, ge=18, le=25, meaning="an ONNX opset that torch writes and onnxruntime reads")
    threads: list[int] = setting([1, 2], ge=1, distinct=True)  # to time with
    against: str | None = None  # a model, such as the teacher, that is timed in torch beside the files

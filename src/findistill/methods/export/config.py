"""Settings of exports, and of publishing them."""

from dataclasses import dataclass

from findistill.config.fields import setting


@dataclass
class Export:
    """stage=export: `evaluate.model` as ONNX files or as a folder to share, or annotations as a data set; and uploads."""

    # onnx: files for onnxruntime; torch: the model's folder, without local paths
    format: str = setting("onnx", choices=("onnx", "torch"))
    # instead of evaluate.model: annotations, given as an artifact's folder or that of a run that used them
    annotations: str | None = None
    # whether to include their texts; None: if their licence allows it
    texts: bool | None = None
    # none: float32; dynamic: 8-bit, activation ranges from each call; static: 8-bit, ranges from training texts
    quantize: list[str] = setting(["none", "dynamic", "static"], choices=("none", "dynamic", "static"), distinct=True)
    calibration_rows: int = setting(256, ge=1)  # training texts for the ranges of static
    opset: int = setting(18, ge=18, le=25, meaning="an ONNX opset that torch writes and onnxruntime reads")
    threads: list[int] = setting([1, 2], ge=1, distinct=True)  # for timing
    against: str | None = None  # a model, such as the teacher, to time in torch for comparison
    # OWNER/NAME on the Hugging Face hub; the token comes from HF_TOKEN or `hf auth login`, never from a setting
    push_to_hub: str | None = setting(
        None, pattern=r"[A-Za-z0-9][\w-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", meaning="OWNER/NAME", runtime_only=True
    )
    private: bool = setting(True, runtime_only=True)  # whether only the owner can see it
    dry_run: bool = setting(True, runtime_only=True)  # print what would be uploaded, and upload nothing

"""Settings of predictions at scale."""

from dataclasses import dataclass

from findistill.config.fields import setting

ENGINES = ("local", "ray")
LLM = "llm"  # predict.model: the model of the `llm` section


@dataclass
class Ray:
    """engine=ray: a cluster's machines need findistill[ray], but no access to the input or the model's folder."""

    # of an existing cluster, `auto` or host:port; None: a local cluster for this job only
    address: str | None = setting(None, runtime_only=True)
    min_actors: int = setting(1, ge=1, runtime_only=True)  # each loads the model
    max_actors: int | None = setting(None, ge=1, runtime_only=True)  # None: as many as the cluster's processors allow
    cpus: float = setting(1.0, gt=0, runtime_only=True)  # per actor: its threads, and what Ray reserves
    gpus: float = setting(0.0, ge=0, runtime_only=True)


@dataclass
class Predict:
    """stage=predict: labels for the rows of `data.path`, a file, a folder or a glob."""

    # a run folder, a model folder, an adapter of stage=qlora, a hub id or an ONNX file; llm: the model of the `llm` section, in
    # this process, with the `prompt` section and data.labels
    model: str | None = None
    # int8, fp32: an ONNX file on the CPU, with 8-bit or 32-bit weights; torch: the model as it is; auto: int8 without a GPU, for
    # encoders that can be exported, else torch
    weights: str = setting("auto", choices=("auto", "int8", "fp32", "torch"))
    types: list[str] = setting([])  # to mark, for a GLiNER that findistill did not train
    format: str = setting("parquet", choices=("parquet", "csv"))
    # an empty or new folder for the files; None: `predictions/` in the run folder
    out: str | None = None
    prefix: str = ""  # of the new columns' names, if the input already has such columns
    low_confidence: float = setting(0.6, ge=0, le=1, meaning="a probability")  # rows below it are counted
    shard_rows: int = setting(65_536, ge=1)  # rows per file: lost at most when killed; duplicates in it are predicted once
    batch_size: int = setting(64, ge=1)
    engine: str = setting("local", choices=ENGINES, runtime_only=True)
    workers: int | None = setting(None, ge=1, runtime_only=True)  # engine=local: processes; None: one per core
    ray: Ray = setting(Ray)

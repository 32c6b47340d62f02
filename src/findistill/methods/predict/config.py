"""Settings of predictions at scale."""

from dataclasses import dataclass

from findistill.config.fields import setting

ENGINES = ("local", "ray")
LLM = "llm"  # predict.model: the model of the `llm` section


@dataclass
class Ray:
    """engine=ray: a cluster's machines need findistill[ray], and read neither the input nor the model's folder."""

    # of a cluster that is there, `auto` or host:port; None: one on this machine, for this job alone
    address: str | None = setting(None, runtime_only=True)
    min_actors: int = setting(1, ge=1, runtime_only=True)  # each has the model loaded
    max_actors: int | None = setting(None, ge=1, runtime_only=True)  # None: as the cluster has processors for
    cpus: float = setting(1.0, gt=0, runtime_only=True)  # of an actor: threads, and what Ray reserves
    gpus: float = setting(0.0, ge=0, runtime_only=True)


@dataclass
class Predict:
    """stage=predict: labels for the rows of `data.path`, a file, a folder or a glob."""

    # a run folder, a model folder, an adapter of stage=qlora, a hub id or an ONNX file; llm: the model of the `llm` section, in
    # this process, with the `prompt` section and data.labels
    model: str | None = None
    # int8, fp32: as an ONNX file on the processor, with 8-bit or 32-bit weights; torch: as it is; auto: int8 on a machine without
    # a GPU, for encoders that can be exported, and torch else
    weights: str = setting("auto", choices=("auto", "int8", "fp32", "torch"))
    types: list[str] = setting([])  # what a GLiNER of others is to mark
    format: str = setting("parquet", choices=("parquet", "csv"))
    # an empty or new folder for the files; None: `predictions/` in the run folder
    out: str | None = None
    prefix: str = ""  # of the new columns' names, where the input has columns of these names
    low_confidence: float = setting(0.6, ge=0, le=1, meaning="a probability")  # below it, rows are counted
    shard_rows: int = setting(65_536, ge=1)  # rows of a file; what a kill costs at most, and where a text is predicted once
    batch_size: int = setting(64, ge=1)
    engine: str = setting("local", choices=ENGINES, runtime_only=True)
    workers: int | None = setting(None, ge=1, runtime_only=True)  # engine=local: processes; None: as many as cores
    ray: Ray = setting(Ray)

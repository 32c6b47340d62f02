"""Settings of stages, sweeps and tracking."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from findistill.config.fields import setting


@dataclass
class StageSettings:
    """A stage of the pipeline: the last step of a job's graph, and what that step itself reads."""

    _target_: str = MISSING
    name: str = MISSING
    reads: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)  # commands suggested after such a job, see `core.closing`
    report: str | None = None  # the module of its report part; None: reports have no part for its jobs


@dataclass
class Sweep:
    on_error: str = setting("continue", choices=("continue", "stop"))
    report: bool = True  # write the study's report when the sweep ends
    vary: list[str] = field(default_factory=list)  # settings that may differ between a study's jobs, besides swept ones
    # choose the best swept settings by their mean over data.folds folds of the labelled rows, and run only those on all labelled
    # rows; test rows are not used. None: run every combination
    choose: str | None = setting(None, choices=("accuracy", "macro_f1"))
    then: list[str] = field(default_factory=list)  # further settings for the chosen ones, such as seeds: ['seed=0,1,2']
    export: bool = False  # also export the chosen model to ONNX, float32 and 8-bit


@dataclass
class Wandb:
    """The entry `wandb` of the `logger` section; its other entries are nodes with the `_target_` of a Lightning logger."""

    project: str = "findistill"
    entity: str | None = None  # the user or team that owns the project; None: your account's default
    mode: str = setting("auto", choices=("auto", "online", "offline"))  # auto is online only when logged in
    tags: list[str] = field(default_factory=list)  # in addition to the job's own: its stage, data, models, ...
    notes: str | None = None
    # what is sent of data, annotations, models and predictions: metadata (names, keys, settings and hashes), or also the files
    artifacts: str = setting("metadata", choices=("none", "metadata", "files"))
    texts: bool = False  # allow sending texts of the data, in the prediction table and in files
    table_rows: int = setting(200, ge=0)  # rows of the prediction table to send
    settings: dict[str, Any] = field(default_factory=dict)  # wandb.Settings that override ours: {x_disable_stats: true}

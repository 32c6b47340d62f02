"""Settings of stages, sweeps and tracking."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from findistill.config.fields import setting


@dataclass
class StageSettings:
    """One verb of the pipeline: the last step of a job's graph, and what that step reads itself."""

    _target_: str = MISSING
    name: str = MISSING
    reads: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)  # what one types after such a job, see `core.closing`
    report: str | None = None  # the module of its report part; None: its jobs are in no report under a name of their own


@dataclass
class Sweep:
    on_error: str = setting("continue", choices=("continue", "stop"))
    report: bool = True  # make the study's report when the sweep ends
    vary: list[str] = field(default_factory=list)  # settings that may differ between a study's jobs, besides swept ones
    # by their mean on data.folds folds of the labelled rows, the best swept settings are chosen and run on all of them; None: all
    # are run. Test rows have no part in it
    choose: str | None = setting(None, choices=("accuracy", "macro_f1"))
    then: list[str] = field(default_factory=list)  # settings of what is chosen, such as a sweep over seeds: ['seed=0,1,2']
    export: bool = False  # what is chosen as ONNX files, too, float32 and 8-bit


@dataclass
class Wandb:
    """The entry `wandb` of the `logger` section; its other entries are nodes with the `_target_` of a Lightning logger."""

    project: str = "findistill"
    entity: str | None = None  # the user or team whose project it is; None: the default of your account
    mode: str = setting("auto", choices=("auto", "online", "offline"))  # auto is online only when logged in
    tags: list[str] = field(default_factory=list)  # besides those of the job: its stage, data, models, ...
    notes: str | None = None
    # what of data, annotations, models and predictions is sent: names, keys, settings and hashes (the lineage), or the files, too
    artifacts: str = setting("metadata", choices=("none", "metadata", "files"))
    texts: bool = False  # texts of the data may be sent: in the table of predictions, and in files
    table_rows: int = setting(200, ge=0)  # rows of the table of predictions that are sent
    settings: dict[str, Any] = field(default_factory=dict)  # of wandb.Settings, over ours: {x_disable_stats: true}

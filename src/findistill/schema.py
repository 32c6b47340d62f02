"""The complete configuration: one dataclass per section, combined and registered with Hydra.

The YAML files under `conf/` inherit from these (`defaults: [base_..., _self_]`), so a misspelt key or a wrong type is an
error before anything runs. Importing this loads nothing heavier than Hydra and OmegaConf.
"""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from findistill import plugins
from findistill.config.fields import setting
from findistill.core.config import StageSettings, Sweep, Wandb
from findistill.data.config import Data, FileData
from findistill.llm.config import (
    LLM,
    Annotate,
    BatchLLM,
    ClassifierLLM,
    CrossFittedLLM,
    EndpointLLM,
    Extract,
    InProcessLLM,
    LabellingFunctions,
    Prompt,
    RecordedLLM,
    Shots,
    VllmLLM,
)
from findistill.methods.augment.config import Augment
from findistill.methods.entities.config import Entities
from findistill.methods.evaluate.config import Evaluate
from findistill.methods.export.config import Export
from findistill.methods.fewshot.config import Fewshot
from findistill.methods.predict.config import Predict
from findistill.methods.review.config import Review
from findistill.methods.serve.config import Serve
from findistill.models.config import CharformerEncoder, Encoder
from findistill.report.config import Report
from findistill.training.config import Distill, LinearTeacher, QLoRA, Teacher, TeacherDistill, Trainer


@dataclass
class Config:
    stage: StageSettings = MISSING
    study: str = setting("default", pattern=r"\w[\w.+-]*", meaning="a valid folder name: only letters, digits, '.', '_', '-'")
    seed: int = setting(0, ge=0)
    runs_dir: str = "runs"
    plan: bool = False  # only print the steps of the job or sweep, which of them exist and what the others would cost
    objective: str | None = None  # the metric that a sweeper optimises; None: the monitored validation score
    data: Data = MISSING
    llm: LLM = MISSING
    prompt: Prompt = MISSING
    shots: Shots = field(default_factory=Shots)
    annotate: Annotate = field(default_factory=Annotate)
    extract: Extract = MISSING
    teacher: Teacher = MISSING
    student: Encoder = MISSING
    augment: Augment = MISSING
    distill: Distill = MISSING
    trainer: Trainer = MISSING
    callbacks: dict[str, Any] = field(default_factory=dict)  # name -> a node with a _target_
    qlora: QLoRA = field(default_factory=QLoRA)
    fewshot: Fewshot = field(default_factory=Fewshot)
    entities: Entities = MISSING
    review: Review = field(default_factory=Review)
    evaluate: Evaluate = field(default_factory=Evaluate)
    export: Export = field(default_factory=Export)
    predict: Predict = field(default_factory=Predict)
    serve: Serve = field(default_factory=Serve)
    report: Report = field(default_factory=Report)
    sweep: Sweep = field(default_factory=Sweep)
    logger: dict[str, Any] = field(default_factory=dict)  # name -> a node with a _target_; W&B's has none


def register() -> None:
    """Add all schemas to Hydra's config store, under the names that the YAML files inherit from, and register all rules.

    Raises:
        UserError: an installed package cannot be loaded.
    """
    for path in sorted(Path(__file__).parent.rglob("rules.py")):
        import_module(_module_name(path))
    plugins.load_packages()
    schemas: dict[str, dict[str, Any]] = {
        "stage": {"stage": StageSettings},
        "data": {"data": Data, "file": FileData},
        "llm": {
            "llm": LLM,
            "in_process": InProcessLLM,
            "vllm": VllmLLM,
            "endpoint": EndpointLLM,
            "batch_api": BatchLLM,
            "recorded": RecordedLLM,
            "classifier": ClassifierLLM,
            "cross_fitted": CrossFittedLLM,
            "rules": LabellingFunctions,
        },
        "prompt": {"prompt": Prompt},
        "extract": {"extract": Extract},
        "teacher": {"teacher": Teacher, "linear": LinearTeacher},
        "student": {"encoder": Encoder, "charformer": CharformerEncoder},
        "augment": {"augment": Augment},
        "entities": {"entities": Entities},
        "distill": {"distill": Distill, "teacher_distill": TeacherDistill},
        # Not a struct: further keys, in a file or on the command line, are checked and passed to Lightning's trainer.
        "trainer": {"trainer": OmegaConf.structured(Trainer, flags={"struct": False})},
        "logger": {"wandb": {"wandb": Wandb}},
    }
    for path in sorted((Path(__file__).parent / "data" / "sources").glob("*.py")):
        name = _module_name(path)
        for node in vars(import_module(name)).values():
            if isinstance(node, type) and issubclass(node, Data) and node.__module__ == name:  # a source with its own settings
                schemas["data"][path.stem] = node
    store = ConfigStore.instance().store
    store(name="base_config", node=plugins.root_schema(Config))
    for group, nodes in schemas.items():
        for name, node in nodes.items():
            store(group=group, name=f"base_{name}", node=node)


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(Path(__file__).parents[1]).with_suffix("").parts)

"""Rules of `stage=predict`, and of the model of `stage=serve`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from findistill.config.validate import rule
from findistill.data.locations import FORMATS, format_of, input_files
from findistill.errors import UserError
from findistill.llm.identity import TUNED
from findistill.methods.predict.config import LLM
from findistill.models.folder import adapter_base, adapter_folder, is_gliner, is_linear, is_onnx, problems

IN_PROCESS = "findistill.llm.in_process.InProcessEngine"


@rule("predict")
def texts(config: Any) -> Iterator[str]:
    if not format_of(config.data):
        yield f"data={config.data.name}: stage=predict reads files; choose data={', '.join(FORMATS)} and set data.path=FILE"
    elif not config.data.path:
        yield f"data.path is not set; data={config.data.name} needs data.path=FILE, a folder, or a glob in quotes"
    else:
        try:
            input_files(config.data)
        except UserError as error:
            yield str(error)


@rule("predict", "serve")
def model(config: Any) -> Iterator[str]:
    stage = config.stage.name
    name = config[stage].model
    if not name:
        yield f"stage={stage} needs {stage}.model: a run folder, a model folder, an adapter, a hub id or an ONNX file"
    elif name == LLM and stage == "predict":
        yield from _language_model(config)
    elif name == LLM:
        yield "serve.model=llm cannot be served: name a run folder of stage=qlora, or serve the model with vLLM or llama.cpp"
    elif adapter := adapter_folder(Path(name)):
        yield from _one_process(config) if stage == "predict" else ()
        try:
            adapter_base(adapter)
        except UserError as error:
            yield str(error)
    elif not is_onnx(Path(name)) and not is_gliner(Path(name)):
        yield from problems(name, "classifier" if is_linear(name) else "")


def _language_model(config: Any) -> Iterator[str]:
    llm, prompt = config.llm, config.prompt
    yield from _one_process(config)
    if llm._target_ != IN_PROCESS:
        yield (
            f"predict.model=llm needs label probabilities of a model in this process, but llm={llm.name} returns none: "
            "use stage=annotate, which caches its responses and counts their cost"
        )
    elif llm.adapter == TUNED:
        yield "llm.adapter=tune needs labelled rows, which stage=predict does not read: name a run folder of stage=qlora"
    if prompt.steps:
        yield f"prompt={prompt.name} asks for steps before the label, which need sampling: use prompt=direct, or stage=annotate"
    if not config.data.labels:
        yield "predict.model=llm needs the labels to choose from, such as data.labels=[negative,neutral,positive]"


def _one_process(config: Any) -> Iterator[str]:
    if config.predict.engine != "local":
        yield f"predict.engine={config.predict.engine} is for small models; language models need predict.engine=local"


@rule("predict")
def actors(config: Any) -> Iterator[str]:
    ray = config.predict.ray
    if ray.max_actors and ray.max_actors < ray.min_actors:
        yield f"predict.ray.max_actors={ray.max_actors} is below predict.ray.min_actors={ray.min_actors}"

"""Rules of `stage=predict`, and of `stage=serve` on its model, which is the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from findistill.config.validate import rule
from findistill.data.locations import FORMATS, format_of, input_files
from findistill.errors import UserError
from findistill.models.folder import is_gliner, is_linear, is_onnx, problems


@rule("predict")
def texts(config: Any) -> Iterator[str]:
    if not format_of(config.data):
        yield f"data={config.data.name}: stage=predict reads files: data={', '.join(FORMATS)}, with data.path=FILE"
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
        yield f"stage={stage} needs {stage}.model: a run folder, a model folder, a hub id or an ONNX file"
    elif not is_onnx(Path(name)) and not is_gliner(Path(name)):
        yield from problems(name, "classifier" if is_linear(name) else "")


@rule("predict")
def actors(config: Any) -> Iterator[str]:
    ray = config.predict.ray
    if ray.max_actors and ray.max_actors < ray.min_actors:
        yield f"predict.ray.max_actors={ray.max_actors} is below predict.ray.min_actors={ray.min_actors}"

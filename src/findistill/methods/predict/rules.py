"""Rules of `stage=predict` and `stage=serve`, which take a model that is there."""

from collections.abc import Iterator
from typing import Any

from findistill.config.validate import rule
from findistill.data.locations import FORMATS, format_of


@rule("predict")
def texts(config: Any) -> Iterator[str]:
    if not format_of(config.data):
        yield f"data={config.data.name}: stage=predict reads files: data={', '.join(FORMATS)}, with data.path=FILE"
    elif not config.data.path:
        yield f"data.path is not set; data={config.data.name} needs data.path=FILE, a folder, or a glob in quotes"


@rule("predict")
def model(config: Any) -> Iterator[str]:
    if not config.predict.model:
        yield "stage=predict needs predict.model: a run folder, a model folder, a hub id or an ONNX file"


@rule("predict")
def actors(config: Any) -> Iterator[str]:
    ray = config.predict.ray
    if ray.max_actors and ray.max_actors < ray.min_actors:
        yield f"predict.ray.max_actors={ray.max_actors} is below predict.ray.min_actors={ray.min_actors}"

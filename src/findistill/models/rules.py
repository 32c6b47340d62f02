"""Rules on how an encoder to train is initialised."""

from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from findistill.config.fields import declares
from findistill.config.validate import missing
from findistill.models.folder import problems


def encoder(config: Any, role: str) -> Iterator[str]:
    """Rules for the section `role`, teacher or student."""
    section = config[role]
    yield from missing(config, role)
    if declares(section, "linear"):
        if getattr(section, "objective", "classification") == "regression" or section.class_weights != "none":
            yield (
                f"{role}={section.name} is logistic regression, which supports neither regression targets nor class weights: "
                f"choose an encoder, {role}=minilm_l6"
            )
        if section.pretrain.source:
            yield f"{role}.pretrain.source is for encoders; {role}={section.name} has no weights to pretrain"
        return
    if not section._target_ and not OmegaConf.is_missing(section, "model"):
        yield from problems(section.model)
    if not declares(section, "word_pieces"):
        if section.pretrain.source or section.trim_vocabulary:
            yield (
                f"{role}.pretrain.source and {role}.trim_vocabulary are for models with word pieces; {section.name} reads bytes"
            )
        if section.init != "random":
            yield f"{role}.init={section.init}: there are no weights of {section.name} to start from; use {role}.init=random"
    elif section._target_ and section.pretrain.source:
        yield f"{role}.pretrain.source is for transformers models; {section.name} is created by {section._target_}"
    if section.freeze_embeddings and section.init == "random":
        yield f"{role}.freeze_embeddings=true would keep random embeddings: set it to false, or use {role}.init=parent"
    if section.init == "parent" and section.shape is None:
        yield f"{role}.init=parent needs {role}.shape, the size to cut from the parent's weights"
    if section.init != "pretrained" and section.layers is not None:
        yield f"{role}.layers keeps layers of a pretrained model: use {role}.init=pretrained, or set {role}.shape.layers"
    shape = section.shape
    if shape is not None and not OmegaConf.missing_keys(shape) and shape.hidden % shape.heads:
        yield f"{role}.shape.hidden={shape.hidden} must be a multiple of {role}.shape.heads={shape.heads}"

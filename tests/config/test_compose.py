"""Every shipped configuration composes and is valid."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from findistill import cli as app
from findistill.config.compose import data_config, plain
from findistill.config.copies import copied
from findistill.config.expand import expand
from findistill.config.fields import nodes, result_settings, schema_of, unresolved
from findistill.config.groups import config_dir, options
from findistill.config.instantiate import check_targets, resolve
from findistill.config.targets import check_names
from findistill.config.validate import validate
from findistill.core import rules
from findistill.core.step import walk
from findistill.core.store import Store
from findistill.errors import UserError
from tests.fixtures.composing import composed, shipped

# What options require to be complete: a user's files, an endpoint's model.
NEEDS = {
    "data=csv": ["data.path=README.md", "shots.k=0"],
    "data=jsonl": ["data.path=README.md", "shots.k=0"],
    "data=excel": ["data.path=README.md", "shots.k=0"],
    "data=parquet": ["data.path=README.md", "shots.k=0"],
    "data=conll": ["data.path=README.md", "stage=entities"],
    "data=demo_companies": ["stage=entities"],
    "data=finer": ["stage=entities"],
    "data=sentfin": ["stage=entities"],
    "stage=entities": ["data=demo_companies"],
    "experiment=company_ner": ["entities.step=label"],
    "experiment=company_ner_curve": ["llm.path=README.md"],
    "data=hub": ["data.hub_id=owner/name", "shots.k=0"],
    "data=reddit": ["shots.source=tfns"],
    "data=headlines": ["shots.source=tfns"],
    "llm=endpoint": ["llm.model=some-model"],
    "llm=batch_api": ["llm.model=some-model"],
    "llm=azure": ['llm.base_url="https://example.invalid/openai/deployments/d?api-version=2024-10-21"'],
    "llm=recorded": ["llm.path=README.md"],
    "llm=openai_batch": ["llm.path=README.md"],
    "llm=rules": ["llm.rules={positive: rose}"],
    "teacher=folder": ["teacher.model=some/folder"],
    "student=folder": ["student.model=some/folder"],
    "stage=evaluate": ["evaluate.model=some/folder"],
    "stage=predict": ["data=csv", "data.path=README.md", "predict.model=some/folder"],
    "stage=serve": ["serve.model=some/folder"],
    "stage=export": ["evaluate.model=some/folder"],
    "experiment=reddit_cls_vs_reg_published": ["llm.model=some-model"],
    "experiment=llm_answers": ["llm.path=README.md"],
    "experiment=llm_answers_single": ["llm.path=README.md"],
    "experiment=llm_answers_labels": ["llm.path=README.md"],
}
CHOICES = [f"{group}={option}" for group, names in options().items() for option in names]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_composes_and_obeys_the_rules(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config_dir().parent)
    monkeypatch.setattr(rules, "find_spec", lambda package: package)  # loggers' packages are optional
    config = composed(choice, *NEEDS.get(choice, []))
    expanded = expand(config)
    validate(expanded)
    check_names(expanded)
    assert OmegaConf.to_container(config, resolve=True)


def test_every_option_is_described_in_the_help() -> None:
    text = app.help_text()
    assert all(option in text for names in options().values() for option in names)


@pytest.mark.parametrize("option", sorted(options()["llm"]))
def test_every_engine_is_what_its_slot_takes(option: str) -> None:
    check_targets(composed(f"llm={option}"))


@pytest.mark.parametrize("option", sorted(options()["data"]))
def test_every_data_reader_is_what_its_slot_takes(option: str) -> None:
    assert callable(resolve(composed(f"data={option}").data._target_, "data._target_"))


def test_named_data_sets_take_settings() -> None:
    assert data_config("fiqa_news classes=2").classes == 2  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="not a data set"):
        data_config("nonsense")
    with pytest.raises(UserError, match="fiqa_news colour=2"):
        data_config("fiqa_news colour=2")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.min_agreement=9"], "annotate.samples=8"),
        (["distill=reg", "distill.label_smoothing=0.1"], "only works with distill=cls"),
        (["distill=reg", "distill.class_weights=balanced"], "only works with distill=cls"),
        (["distill.target=scalar"], "only works with distill=reg"),
        (["distill.source=human"], "has no annotator votes"),
        (["annotate.temperature=0"], "look like full agreement"),
        (["shots.selection=balanced", "shots.k=4"], "multiple of 3"),
        (["annotate.calibration=batch", "prompt=cot"], "label probabilities"),
        (["shots.selection=sometimes"], "choose one of random, balanced, nearest"),
        (["data.validation=1.5"], "a share of the rows: at least 0, below 1"),
        (["study=a/b"], "not a valid folder name"),
        (["data=csv"], "data.path is not set"),
        (["data=csv", "data.path=nowhere.csv", "shots.k=0"], "no such file"),
        (["data=reddit"], "shots.source"),
        (["stage=evaluate"], "evaluate.model"),
        (["llm=endpoint"], "llm.model is not set"),
        (["stage=teacher", "data=csv", "data.path=README.md"], "needs human labels"),
        (["trainer=cpu", "trainer.precision=16"], "needs a GPU"),
        (["seed=-1"], "must be at least 0"),
        (["trainer.layer_decay=0"], "above 0, at most 1"),
        (["trainer.schedule=cosine"], "choose one of linear, slanted, constant"),
        (["student.init=parent"], "needs student.shape"),
        (["student=tiny_2l_128d", "student.init=random"], "student.freeze_embeddings=true would keep random embeddings"),
        (["student.init=random"], "student.layers keeps layers of a pretrained model"),
        (["student=tiny_2l_128d", "student.shape.heads=3"], "must be a multiple of student.shape.heads=3"),
        (["student=tiny_2l_128d", "student.shape.layers=0"], "student.shape.layers=0 must be at least 1"),
        (["student=charformer", "student.trim_vocabulary=true"], "charformer reads bytes"),
        (["student=charformer", "student.init=pretrained"], "no weights of charformer"),
        (["student.pretrain.source=nothing"], "no such data set"),
        (["stage=teacher", "teacher.pretrain.source=headlines", "teacher.pretrain.mask=1"], "share of the words"),
        (["stage=teacher", "teacher.objective=regression"], "needs scores; data=demo has none"),
        (
            ["stage=teacher", "data=fiqa_news", "teacher.objective=regression", "teacher.class_weights=balanced"],
            "no class to weigh",
        ),
        (["distill=logit", "distill.terms.kl=0"], "no term trains the predictions"),
        (["distill=logit", "distill.terms.hidden=-1"], "not a weight"),
        (["distill=logit", "distill.intermediate.epochs=2"], "has nothing to learn from"),
        (["distill=logit", "distill.temperature=0"], "must be above 0"),
        (["distill=tinybert", "distill.layers=sometimes"], "uniform, last, skip"),
        (["distill=tinybert", "distill.layers={1: 2}"], "list teacher layers"),
        (["distill=tinybert", "distill.recipe=careful"], "faithful"),
        (["distill=tinybert", "distill.unlabelled=nonsense"], "no such data set"),
        (["distill=tinybert", "distill.source=annotator"], "come from the preset"),
        (["distill=tinybert", "teacher=folder"], "teacher.model is not set"),
        (["distill=logit", "data=headlines"], "distill.teacher=RUN_FOLDER"),
        (["distill=mixed", "data=headlines", "distill.teacher=some/folder"], "[embeddings] are trained on human labels"),
        (["distill.source=teacher"], "to learn from a teacher model, distill=logit, minilm or tinybert"),
        (["distill.min_agreement=null"], "1 keeps all texts"),
        (["stage=fewshot", "llm=gpt35_turbo", "fewshot.scoring=likelihood"], "fewshot.scoring=generation or auto"),
        (["stage=fewshot", "fewshot.scoring=generation", "annotate.samples=4", "annotate.temperature=1"], "decodes greedily"),
        (["stage=fewshot", "fewshot.scoring=generation", "annotate.calibration=batch"], "fewshot.scoring=likelihood"),
        (["stage=fewshot", "annotate.limit=40"], "fewshot.limit"),
        (["stage=fewshot", "annotate.ensemble=['shots.k=2']"], "one llm with one prompt"),
        (["trainer.max_memory=0"], "must be above 0"),
    ],
)
def test_rules_say_what_does_not_go_together(overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config_dir().parent)
    with pytest.raises(UserError) as error:
        validate(expand(composed(*overrides)))
    assert message in str(error.value) and "llm.llm" not in str(error.value)


def test_a_stage_is_not_asked_for_what_it_does_not_read() -> None:
    validate(composed("distill=tinybert", "llm=endpoint"))
    validate(composed("distill=minilm", "student=tiny_2l_128d"))
    validate(composed("distill=tinybert", "teacher=folder", "distill.teacher=some/folder", "distill.layers=[2,4,6]"))
    validate(composed("stage=teacher", "llm=endpoint", "student=folder", "distill.min_agreement=99"))


def test_the_seed_of_fewshot_draws_its_demonstrations() -> None:
    assert composed("stage=fewshot", "seed=2").shots.seed == 2
    assert composed("stage=fewshot", "seed=2", "shots.seed=7").shots.seed == 7
    assert composed("stage=annotate", "seed=2").shots.seed == 0
    validate(composed("stage=fewshot", "shots.selection=balanced", "shots.k=10"))  # 10 is not a multiple of three


def test_keys_are_only_ever_named() -> None:
    whole = OmegaConf.to_yaml(composed("llm=endpoint", "llm.model=m"), resolve=True)
    assert "api_key_env: OPENAI_API_KEY" in whole
    assert os.environ.get("OPENAI_API_KEY", "never") not in whole


def test_a_data_set_stands_without_the_settings_that_it_refers_to(tmp_path: Path) -> None:
    config = composed("data=demo", "data.labelled=20", "data.labelled_seed=${seed}", "data.validation=0", "seed=3")
    [own] = [step for step in walk(resolve(config.stage._target_, "stage._target_")(expand(config))) if step.name == "data"]
    Store(tmp_path).build(own)
    assert own.record["settings"]["labelled_seed"] == 3


def test_an_unresolved_configuration_is_omegaconfs_container() -> None:
    for choice in ("data=csv", "experiment=company_ner", "logger=wandb"):
        config = composed(choice, *NEEDS.get(choice, []), "+logger.more={n: 1, names: [a, null, '${seed}']}")
        assert unresolved(config) == OmegaConf.to_container(config, resolve=False)


def test_a_copy_keeps_its_place_in_the_whole() -> None:
    config = composed("seed=3", "data.labelled_seed=${seed}")
    for part in (config, config.data):
        same = copied(part)
        assert same == part and same is not part and same._get_parent() is part._get_parent()
    own = copied(config.data)
    own.limit = 7
    assert own.labelled_seed == 3 and config.data.limit != 7


def test_settings_of_several_types_are_read_as_their_values() -> None:
    @dataclass
    class Several:
        size: int | str = "half"
        limit: int | None = None

    section = OmegaConf.structured(Several)
    assert result_settings(section) == unresolved(section) == {"size": "half", "limit": None}


@pytest.mark.parametrize("stage", ["stage=teacher", "stage=student"])
def test_every_mapping_can_be_given_on_the_command_line(stage: str) -> None:
    """Null ones, too, into which OmegaConf cannot merge."""
    config = composed(stage)
    maps = {key: node._is_none() for key, node in _nodes(config) if isinstance(node, DictConfig) and not schema_of(node)}
    assert {"trainer.optimizer", "trainer.scheduler", "student.shape", "callbacks", "logger"} <= {*maps}
    for key, is_null in maps.items():
        name = "layers" if key.endswith(".shape") else "some"
        for override in (f"+{key}.{name}=1", *([f"{key}={{{name}: 1}}"] if is_null else [])):
            assert OmegaConf.select(composed(stage, override), key)[name] == 1


def _nodes(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in nodes(node).items():
        yield f"{prefix}{name}", inner
        if isinstance(inner, DictConfig):
            yield from _nodes(inner, f"{prefix}{name}.")


def test_plain_values_are_those_of_omegaconf() -> None:
    with shipped():
        configs = [compose("config", [f"experiment={name}"]) for name in ("demo", "reddit_cls_vs_reg", "company_ner")]
    configs.append(OmegaConf.create({
        "a": 1, "b": "${a}", "c": {"d": "${..a}/x", "e": "${c.f}", "f": [1, "${a}", {"g": None}]}, "h": None, "i": "???",
        "j": "${c}", "k": Path("x"), "l": DictConfig(None), "m": ListConfig(None), "${a}": "key",
    }))  # fmt: skip
    for config in configs:
        assert plain(config) == {str(key): value for key, value in OmegaConf.to_container(config, resolve=True).items()}
    with pytest.raises(InterpolationKeyError, match="'nowhere' not found"):
        plain(OmegaConf.create({"a": {"b": "${nowhere}"}}))

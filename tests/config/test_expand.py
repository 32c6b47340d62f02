"""Settings given as words, mappings or nodes are equivalent, and consumers only see nodes."""

import time
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from findistill.config.compose import plain
from findistill.config.copies import copied
from findistill.config.expand import annotators, expand
from findistill.config.overrides import quoted
from findistill.config.validate import validate
from findistill.data.sources.headlines import HeadlinesData
from findistill.errors import UserError
from findistill.methods.stage import stage_of
from tests.fixtures.composing import shipped
from tests.fixtures.machine import slowness


def configured(*overrides: str) -> Any:
    with shipped():
        return compose("config", overrides=list(overrides))


def tunes(*overrides: str) -> bool:
    """Whether annotating with these settings tunes an adapter first."""
    return "qlora" in stage_of(configured("stage=annotate", *overrides)).sections_read


FORMS = {
    "words": ["distill.unlabelled='headlines limit=20000'"],
    "mapping": ["distill.unlabelled={name: headlines, limit: 20000}"],
    "node": ["+data@distill.unlabelled=headlines", "distill.unlabelled.limit=20000"],
}


@pytest.mark.parametrize("form", FORMS)
def test_three_forms_of_a_data_set_mean_the_same(form: str) -> None:
    config = configured("distill=tinybert", *FORMS[form])
    pool = expand(config).distill.unlabelled
    assert OmegaConf.get_type(pool) is HeadlinesData and (pool.name, pool.limit) == ("headlines", 20000)
    assert expand(expand(config)) == expand(config)
    validate(expand(config))


def test_every_place_that_names_a_data_set() -> None:
    config = configured(
        "stage=teacher", "shots.source=tfns", "evaluate.also=['phrasebank test=1',fiqa_news]", "teacher.pretrain.source=headlines"
    )
    expanded = expand(config)
    assert expanded.shots.source.hub_id == "zeroshot/twitter-financial-news-sentiment"
    assert [data.name for data in expanded.evaluate.also] == ["phrasebank", "fiqa_news"]
    assert expanded.evaluate.also[0].test == 1 and expanded.teacher.pretrain.source.name == "headlines"
    assert config.shots.source == "tfns" and expanded.student.pretrain.source is None
    validate(expanded)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["shots.source=tfms"], "shots.source=tfms: no such data set (did you mean tfns?); available: conll, csv, demo"),
        (["evaluate.also=['tfns colour=1']"], "evaluate.also: data set 'tfns colour=1': "),
        (["evaluate.also=[{name: tfns, colour: 1}]"], "evaluate.also: data.colour: no such setting. data has: name"),
        (["shots.source=3"], "shots.source=3: must be a data set"),
        (["annotate.ensemble=['seed=3']"], "annotate.ensemble: seed: an annotator can only have settings of llm, prompt, shots"),
        (["annotate.ensemble=['prompt=coot']"], "annotate.ensemble: 'prompt=coot': no such option (did you mean cot?)"),
        (["annotate.ensemble=[{prompt: {name: cot, colour: 1}}]"], "annotate.ensemble: prompt.colour: no such setting."),
        (["annotate.ensemble=[3]"], "annotate.ensemble=3: write an annotator as"),
    ],
)
def test_mistakes_name_the_setting(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        expand(configured(*overrides))
    assert str(error.value).startswith(message), error.value


def test_values_of_a_named_data_set_are_validated() -> None:
    with pytest.raises(UserError, match=r"evaluate\.also\.0\.limit=1 must be at least 2"):
        validate(expand(configured("evaluate.also=['tfns limit=1']")))


def test_a_file_in_a_setting_is_checked_as_the_jobs_own() -> None:
    with pytest.raises(UserError, match=r"shots\.source\.path=no\.csv: no such file"):
        validate(expand(configured("shots.source='csv path=no.csv'")))


@pytest.mark.parametrize(
    "members",
    ["['prompt=cot shots.k=6','llm=smollm2_plain']", "[{prompt: cot, shots: {k: 6}},{llm: smollm2_plain}]"],
)
def test_annotators_of_an_ensemble(members: str) -> None:
    config = configured(f"annotate.ensemble={members}", "annotate.samples=4")
    one, other = annotators(expand(config))
    assert (one.prompt.name, one.shots.k, one.llm.name) == ("cot", 6, "smollm2")
    assert (other.prompt.name, other.shots.k, other.llm.name) == ("direct", 4, "smollm2_plain")
    assert one.annotate.samples == 4 and not one.annotate.ensemble and OmegaConf.get_type(one) is OmegaConf.get_type(config)
    assert annotators(expand(configured())) == [configured()]
    assert expand(expand(config)) == expand(config)
    for own in (["shots.source='demo rows=60'"], ["shots.source='demo rows=60'", "annotate.ensemble=[{shots: {k: 1}}]"]):
        words = own if len(own) > 1 else [f"annotate.ensemble={quoted(own)}"]
        [one] = annotators(expand(configured(*words)))
        assert one.shots.source.name == "demo" and one.shots.source.rows == 60


@pytest.mark.parametrize(
    ("word", "section", "value"),
    [
        ("llm=recorded llm.where={model:gpt-4}", "where", {"model": "gpt-4"}),
        ("llm=recorded 'llm.where={model: gpt-4, run: [1, 2]}'", "where", {"model": "gpt-4", "run": [1, 2]}),
        ("llm=recorded llm.where={model: 'a b'} shots.k=2", "where", {"model": "a b"}),
        ("llm=rules llm.rules.positive=(rose|grew) llm.rules.negative=[fell,loss]", "rules",
         {"positive": "(rose|grew)", "negative": ["fell", "loss"]}),
    ],
)  # fmt: skip
def test_words_are_read_as_on_the_command_line(word: str, section: str, value: dict[str, Any]) -> None:
    [one] = annotators(expand(configured(f"annotate.ensemble={quoted([word])}")))
    assert plain(one.llm[section]) == value


def test_the_same_words_are_composed_once() -> None:
    config = configured("evaluate.also=[tfns,phrasebank,fiqa_news,fiqa_posts]")
    expand(config)
    started = time.process_time()
    for _ in range(20):
        expand(config)
    assert time.process_time() - started < 2 * slowness()


def test_tuning_is_seen_in_every_form() -> None:
    for members in ("['shots.k=0 llm.adapter=tune']", "[{shots: {k: 0}, llm: {adapter: tune}}]"):
        assert tunes(f"annotate.ensemble={members}")
    assert tunes("shots.k=0", "annotate.ensemble=['llm.adapter=tune']") and tunes("shots.k=0", "llm.adapter=tune")
    assert not tunes("annotate.ensemble=['llm=gpt4o llm.model=m']") and not tunes("llm=gpt4o")


def test_expanding_changes_nothing_of_what_was_composed() -> None:
    words = ["distill=tinybert", "distill.unlabelled='headlines limit=2000'", "evaluate.also=['fiqa_news classes=2']"]
    config = copied(configured(*words))  # with its own sections
    before = OmegaConf.to_yaml(config)
    expanded = expand(config)
    assert isinstance(expanded.distill.unlabelled, DictConfig) and expanded.distill.unlabelled.limit == 2000
    assert OmegaConf.to_yaml(config) == before and config.distill.unlabelled == "headlines limit=2000"
    assert expanded.distill._get_root() is expanded and config.distill._get_root() is config

"""Compositions that share files already read are identical to fresh ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from findistill.config.compose import without_hydra
from findistill.config.copies import copied
from findistill.config.fields import nodes, unresolved
from findistill.config.groups import config_dir
from findistill.hydra_ext.read_once import ReadOnce, compose_job, read_once, shared
from findistill.methods.stage import stage_of
from tests.faults import conftest as fixtures
from tests.faults.conftest import Application

application = fixtures.application

JOBS = (
    ["stage=teacher", "data=tfns"], ["experiment=demo"], ["shots.source='tfns limit=5'"], ["stage=teacher", "data=tfns"],
    ["seed=3", "stage=teacher", "+trainer.limit_train_batches=2", "data=tfns", "data.limit=7"], ["seed=4", "experiment=demo"],
    ["+data@shots.source=tfns", "shots.k=2"], ["hydra.job.name=mine", "seed=1"], ["trainer={max_epochs: 4}", "stage=teacher"],
    ["trainer.max_epochs=3", "stage=student", "distill=reg"], ["stage=student", "trainer.max_epochs=4", "distill=reg"],
)  # fmt: skip
SWEEPS = (["seed=1,2", "experiment=demo"], ["experiment=demo", "seed=3"], ["distill=cls,reg", "trainer.max_epochs=2,3", "seed=1"],
          ["hydra.mode=MULTIRUN", "distill=cls,reg"])  # fmt: skip
MISTAKES = (
    ["sed=3"],
    ["stage=teachr"],
    ["trainer.max_epochs=many"],
    ["+seed=3"],
    ["~seed=9"],
    ["seed=1,2"],
    ["trainer=nowhere", "seed=2"],
    ["~llm.price", "seed=5"],
    ["seed=5", "trainer=[cpu"],
)


@pytest.fixture(autouse=True)
def fresh_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the sharing of compositions that other tests use."""
    monkeypatch.setattr(ConfigLoaderImpl, "__init__", getattr(ConfigLoaderImpl.__init__, "__wrapped__"))  # noqa: B009


@pytest.fixture
def colours(tmp_path: Path) -> Iterator[ConfigLoader]:
    """A loader of a configuration with a group that has no default."""
    (tmp_path / "config.yaml").write_text("defaults: [colour: '???', _self_]\n")
    (tmp_path / "colour").mkdir()
    (tmp_path / "colour" / "red.yaml").write_text("name: red\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        read_once(loader)
        yield loader


def test_the_same_as_fresh_compositions_in_any_order() -> None:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        fresh = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in JOBS]
        read_once(GlobalHydra.instance().config_loader())
        shared = [OmegaConf.to_yaml(compose("config", job, return_hydra_config=True)) for job in (*JOBS, *reversed(JOBS))]
    assert shared == [*fresh, *reversed(fresh)]


def test_what_is_composed_for_a_sweep_serves_its_jobs_and_the_other_way_round() -> None:
    def both(overrides: list[str]) -> list[str]:
        loader = GlobalHydra.instance().config_loader()
        modes = [RunMode.MULTIRUN, *([] if any("," in each for each in overrides) else [RunMode.RUN])]
        return [OmegaConf.to_yaml(loader.load_configuration("config", overrides, mode)) for mode in modes]

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        fresh = [both(overrides) for overrides in (*SWEEPS, *JOBS[:4])]
        read_once(GlobalHydra.instance().config_loader())
        assert [both(overrides) for overrides in (*SWEEPS, *JOBS[:4])] == fresh


def test_a_job_is_composed_as_hydra_does_without_its_hydra_node() -> None:
    jobs = [
        ["seed=1", "experiment=demo"], ["seed=2", "experiment=demo"], ["experiment=demo", "shots.k=3", "seed=1"],
        ["stage=annotate", "shots.source='tfns limit=5'", "annotate.samples=3", "annotate.temperature=1"],
        ["stage=annotate", "annotate.ensemble=['prompt=cot','shots.k=2']", "annotate.combine=dawid_skene"],
        ["stage=student", "distill=tinybert", "distill.unlabelled='headlines limit=9'", "data.labelled_seed=${seed}", "seed=4"],
        ["stage=teacher", "+trainer.limit_train_batches=2", "~callbacks"], ["stage=teacher", "teacher=tfidf", "data.limit=50"],
    ]  # fmt: skip

    def step(config: DictConfig) -> Any:
        return stage_of(without_hydra(config))

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        fresh = [loader.load_sweep_config(master, job) for job in jobs]
        read_once(loader)
        for job, expected in [*zip(jobs, fresh, strict=True)] * 2:
            config, words = compose_job(loader, master, job)
            assert words == expected.hydra.overrides.task == job
            assert but_hydra(config) == but_hydra(expected)
            assert step(config).record == step(copied(expected)).record


def but_hydra(config: DictConfig) -> dict[str, Any]:
    return {name: unresolved(node) for name, node in nodes(config).items() if name != "hydra"}


def test_a_job_whose_options_are_incomplete_is_hydras_error(colours: ConfigLoader) -> None:
    master = colours.load_configuration("config", ["colour=red,red"], RunMode.MULTIRUN)
    with pytest.raises(HydraException, match="You must specify 'colour'"):
        compose_job(colours, master, [])
    assert compose_job(colours, master, ["colour=red"])[0].colour.name == "red"


def test_a_command_composes_once_what_is_checked_and_run(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[list[str]] = []
    compose_fresh = ConfigLoaderImpl._load_configuration_impl

    def counting(self: ConfigLoaderImpl, **settings: Any) -> DictConfig:
        composed.append(settings["overrides"])
        return compose_fresh(self, **settings)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", counting)
    assert application("stage=teacher", "data.limit=9", "plan=true").code == 0
    assert composed == [["stage=teacher"]]
    composed.clear()
    application("data=demo", "distill.min_agrement=5").is_mistake("no such setting")
    # Names for suggestions are composed once a process, perhaps by an earlier test.
    assert composed[0] == ["data=demo"] and composed[1:] in ([[]], [])
    create = ConfigLoaderImpl.__init__
    application("distill.min_agreement=9").is_mistake("can never be reached")
    assert ConfigLoaderImpl.__init__ is create  # restored, also after an error


def test_an_option_that_only_a_sweep_chooses_is_missing_in_a_job(colours: ConfigLoader) -> None:
    assert "colour" not in colours.load_configuration("config", ["colour=red,red"], RunMode.MULTIRUN)
    with pytest.raises(HydraException, match="You must specify 'colour'"):
        colours.load_configuration("config", [], RunMode.RUN)
    assert colours.load_configuration("config", ["colour=red"], RunMode.RUN).colour.name == "red"


def test_a_default_may_name_the_option_of_another_group(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("defaults: [colour: red, shade: '${colour}_dark', _self_]\n")
    for group, option in (("colour", "red"), ("colour", "blue"), ("shade", "red_dark"), ("shade", "blue_dark")):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{option}.yaml").write_text(f"name: {option}\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        jobs = ([], ["colour=blue"], ["shade=blue_dark"], ["colour=blue", "shade='${colour}_dark'"])
        plain = [compose("config", job) for job in jobs]
        read_once(GlobalHydra.instance().config_loader())
        assert [compose("config", job) for job in jobs] == plain
    assert [str(config.shade.name) for config in plain] == ["red_dark", "blue_dark", "blue_dark", "blue_dark"]


def test_loaders_share_where_they_look_in_the_same_places_and_keep_their_jobs_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("seed: 2\n")
    with shared():
        values = []
        for folder, name in ((tmp_path, "first"), (tmp_path / "other", "second"), (tmp_path, "third")):
            with initialize_config_dir(str(folder), version_base="1.3", job_name=name):
                config = compose("config", return_hydra_config=True)
                values.append((config.seed, config.hydra.job.name))
            (tmp_path / "config.yaml").write_text("seed: 3\n")  # too late: already read
    assert values == [(1, "first"), (2, "second"), (1, "third")]


@pytest.mark.parametrize("job", MISTAKES, ids=lambda job: " ".join(job))
def test_a_mistake_is_the_same_error(job: list[str]) -> None:
    errors = []
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for _ in range(2):
            with pytest.raises(HydraException) as error:
                compose("config", job)
            errors.append((type(error.value), str(error.value), str(error.value.__cause__)))
            read_once(GlobalHydra.instance().config_loader())
    assert errors[0] == errors[1]


def test_a_file_is_read_once_and_folders_of_a_composition_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [demo]\nlimit: 7\n")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        read_once(loader)
        read_once(loader)  # does not wrap the repository twice
        assert isinstance(loader.repository, ReadOnce) and not isinstance(loader.repository.repository, ReadOnce)
        reads: list[str] = []
        load = type(loader.repository.repository).load_config
        monkeypatch.setattr(
            type(loader.repository.repository),
            "load_config",
            lambda self, config_path: reads.append(config_path) or load(self, config_path),
        )
        compose("config", ["data=demo"])
        compose("config", ["data=demo"])
        assert len(reads) == len(set(reads)) > 10
        assert compose("config", ["data=mine", f"hydra.searchpath=[file://{tmp_path}]"]).data.limit == 7
        with pytest.raises(Exception, match="data/mine"):
            compose("config", ["data=mine"])

"""Keys depend on settings, parents and files; a step reads only what it declares."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from findistill.core.step import ModelFolder, Settings, Step, changed_files, walk
from findistill.core.store import Store, Work
from findistill.data.sources.demo import DemoData
from findistill.training.config import Trainer


def config(**changes: object):
    sections = {"trainer": OmegaConf.structured(Trainer), "data": OmegaConf.structured(DemoData(name="demo"))}
    node = OmegaConf.create({**sections, "seed": 0})
    for name, value in changes.items():
        OmegaConf.update(node, name.replace("__", "."), value)
    return node


class Rows(Step):
    """Reads one file and no settings."""

    name = "rows"
    implementation = "tests.core.test_step:write_rows"

    def __init__(self, config: object, path: Path) -> None:
        super().__init__(config)
        self.path = path

    def files(self) -> list[Path]:
        return [self.path]


class Model(Step):
    name = "model"
    reads = ("trainer.batch_size", "trainer.max_memory", "seed")
    implementation = "tests.core.test_step:write_model"

    def __init__(self, config: object, path: Path) -> None:
        super().__init__(config)
        self.path = path

    def parents(self) -> dict[str, Step]:
        return {"rows": Rows(self.whole, self.path)}


def write_rows(work: Work) -> None:
    (work.folder / "rows.txt").write_text(work.step.path.read_text())


def write_model(work: Work) -> None:
    rows = (work.parents["rows"] / "rows.txt").read_text()
    (work.folder / "model.txt").write_text(f"{rows} {work.config.trainer.batch_size} {work.config.seed}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "news.csv"
    path.write_text("a,b")
    return path


def test_a_key_follows_declared_settings_files_and_parents(path: Path) -> None:
    key = Model(config(), path).key
    assert Model(config(), path).key == key
    assert Model(config(trainer__batch_size=7), path).key != key
    assert Model(config(seed=1), path).key != key
    assert Model(config(trainer__max_epochs=9, data__limit=4), path).key == key, "it does not read them"
    assert Model(config(trainer__max_memory=3.0), path).key == key, "it can change no result"
    path.write_text("a,c")
    assert Model(config(), path).key != key, "the parent's file has other content"
    path.write_text("a,b")
    assert Model(config(), path).key == key
    elsewhere = path.parent / "deep"
    elsewhere.mkdir()
    assert Model(config(), path.rename(elsewhere / path.name)).key == key, "where a file lies does not matter"


def test_an_implementation_cannot_read_what_is_not_declared() -> None:
    settings = Settings(config(trainer__batch_size=7, trainer__max_epochs=9), ("trainer.batch_size",))
    assert settings.trainer.batch_size == 7
    assert settings.trainer.max_epochs is None, "an undeclared setting of a declared section has its default"
    with pytest.raises(AttributeError, match="does not declare"):
        _ = settings.data
    assert "seed" not in settings


def test_parents_are_made_first_and_only_when_needed(path: Path, tmp_path: Path) -> None:
    store, step = Store(tmp_path / "store"), Model(config(seed=3), path)
    folder = store.build(step)
    assert (folder / "model.txt").read_text() == "a,b None 3"
    assert [artifact.made for artifact in (*store.used["rows"], *store.used["model"])] == [True, True]
    again = Store(tmp_path / "store")
    assert again.build(Model(config(seed=3), path)) == folder
    assert "rows" not in again.used, "a complete artifact needs no parents"
    sibling = again.build(Model(config(seed=4), path))
    assert sibling != folder and [artifact.made for artifact in again.used["rows"]] == [False]


def test_what_changed_is_told_only_where_nothing_but_files_did(path: Path) -> None:
    before = Model(config(), path).lineage()
    assert changed_files(before, Model(config(), path).lineage()) is None
    path.write_text("other")
    assert changed_files(before, Model(config(), path).lineage()) == ["news.csv"]
    assert changed_files(before, Model(config(seed=1), path).lineage()) is None


def test_the_graph_is_walked_parents_first_each_artifact_once(path: Path) -> None:
    class Two(Step):
        name = "two"
        reads = ("data",)

        def parents(self) -> dict[str, Step]:
            return {"a": Model(self.whole, path), "b": Rows(self.whole, path)}

    step = Two(config())
    assert [node.name for node in walk(step)] == ["rows", "model", "two"]
    assert step.sections_read == ["data", "seed", "trainer"]


def test_a_model_outside_the_store_is_its_content_and_a_hub_id_is_itself(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    first = ModelFolder(str(tmp_path), [weights]).key
    weights.write_bytes(b"2")
    assert ModelFolder(str(tmp_path), [weights]).key != first
    assert ModelFolder("owner/a", []).key != ModelFolder("owner/b", []).key
    child = SimpleNamespace(check=None, inputs={"model": ModelFolder("owner/a", [])})
    assert Store(tmp_path).parents(child) == {"model": Path("owner/a")}  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from("abcd"), st.integers() | st.text(), min_size=1))
def test_lineages_differ_where_settings_do(values: dict[str, object]) -> None:
    class One(Step):
        name = "one"

        def __init__(self, values: dict[str, object]) -> None:
            super().__init__(None)
            self.values = values

        def settings(self) -> dict[str, object]:
            return self.values

    other = {**values, "a": "changed"}
    assert (One(values).key == One(other).key) == (values == other)

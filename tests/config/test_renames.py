"""A setting's old name is refused wherever it is used, and the message gives the new one."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from findistill.config import renames
from findistill.config.compose import data_config, with_overrides
from findistill.config.expand import expand
from findistill.errors import UserError
from tests.config.test_expand import configured
from tests.faults.conftest import application as application_fixture

application = application_fixture


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "RENAMED", {"data.poool": "data.labelled", "shots.number": "shots.k", "mood": "prompt"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.poool=2000"], "data.poool is now data.labelled: data.labelled=2000"),
        (["+data.poool=2000"], "data.poool is now data.labelled: data.labelled=2000"),
        (["~shots.number"], "shots.number is now shots.k"),
        (["-m", "shots.number=1,2"], "shots.number is now shots.k: shots.k=1,2"),
        (["mood.steps=[]"], "mood.steps is now prompt.steps: prompt.steps=[]"),
        (["evaluate.also=['tfns poool=3']"], "data.poool is now data.labelled: data.labelled=3"),
        (["experiment=old"], "experiment/old: data.poool is now data.labelled"),
        (["experiment=swept"], "data.poool is now data.labelled"),
    ],
)
def test_an_old_name_is_refused(arguments, words, application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "old.yaml").write_text("# @package _global_\ndata: {poool: 3}\n")
    (tmp_path / "conf" / "experiment" / "swept.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {data.poool: '3,4'}}}\n"
    )
    monkeypatch.setenv("FINDISTILL_CONF", str(tmp_path / "conf"))
    if arguments[0].startswith("evaluate.also"):
        with pytest.raises(UserError, match=r"data\.poool is now data\.labelled"):
            expand(configured(*arguments))
        return
    sweep = ["-m"] if arguments == ["experiment=swept"] else []
    application(*sweep, *arguments).is_mistake(words)


def test_in_the_short_forms() -> None:
    with pytest.raises(UserError, match=r"data\.poool is now data\.labelled: data\.labelled=3"):
        data_config("tfns poool=3")
    with pytest.raises(UserError, match=r"shots\.number is now shots\.k: shots\.k=6"):
        with_overrides(configured(), "prompt=cot shots.number=6", "annotate.ensemble")


@pytest.mark.parametrize(("old", "new"), renames.RENAMED.items())
def test_every_renamed_setting_exists_and_its_old_name_does_not(old: str, new: str) -> None:
    config = configured("distill=logit")
    section, _, name = new.rpartition(".")
    assert name in OmegaConf.select(config, section) and old.partition(".")[2] not in config[old.partition(".")[0]]

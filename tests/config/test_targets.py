"""A shared configuration cannot run arbitrary code: targets are checked by their place in it, before anything runs."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import OmegaConf

from findistill.config.instantiate import build, check_targets, resolve
from findistill.config.targets import SLOTS, check_names, target
from findistill.errors import UserError
from tests.fixtures.composing import shipped


def configured(*overrides: str) -> Any:
    with shipped():
        return compose("config", overrides=list(overrides))


# Code that a configuration must not run, in the libraries that findistill depends on and in findistill itself.
ATTACKS = {
    "shell": "torch.distributed.run.main",
    "shell of a report": "torch.utils.collect_env.run",
    "pickle": "torch.load",
    "remote code": "transformers.AutoModel.from_pretrained",
    "file write": "findistill.core.files.write_whole",
    "copy by attributes": "findistill.core.store.shutil.copy",
    "download": "torch.hub.download_url_to_file",
    "another package": "os.system",
    "builtin": "builtins.eval",
    "module of the program": "findistill.__main__.main",
    "the program": "findistill.cli.main",
    "class by attributes": "findistill.llm.endpoint.EndpointEngine.answers",
    "class of another slot": "findistill.core.store.Store",
    "no dotted name": "torch",
    "interpolated": "${study}",
}

PLACES = [place.replace("*", "mine") for slot in SLOTS for place in slot.places]


def put(config: dict[str, Any], key: str, value: Any) -> Any:
    """A copy of a plain configuration with `value` at `key`, replacing anything there or above it."""
    whole: dict[str, Any] = copy.deepcopy(config)
    node = whole
    *above, last = key.split(".")
    for name in above:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    node[last] = value
    return OmegaConf.create(whole)


@pytest.fixture(scope="module")
def config() -> Any:
    return OmegaConf.to_container(configured(), resolve=False)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_slot_takes_other_code(config: Any, attack: str, place: str) -> None:
    with pytest.raises(UserError) as error:
        check_targets(put(config, place, {"_target_": ATTACKS[attack]}))
    assert str(error.value).startswith(f"{place}._target_=")


NOWHERE = [
    "runs_dir", "mine", "data.label_map", "llm.extra_body", "llm.extra_body.metadata.deep", "llm.price", "prompt", "shots",
    "distill", "distill.terms", "distill.terms.mine.inner", "trainer", "trainer.strategy", "trainer.optimizer.inner",
    "callbacks", "callbacks.mine.inner", "logger.mine.inner", "sweep", "student.shape", "student.pretrain",
]  # fmt: skip


@pytest.mark.parametrize("key", NOWHERE)
@pytest.mark.parametrize("name", ["_target_", "_args_", "_partial_", "_recursive_", "_convert_"])
@pytest.mark.parametrize("in_list", [False, True])
def test_what_instantiates_stands_in_slots_only(config: Any, key: str, name: str, in_list: bool) -> None:
    node: Any = {name: "torch.nn.Identity"}
    value = [1, [{"inner": node}]] if in_list else node
    with pytest.raises(UserError, match=f"{name} is not allowed there"):
        check_names(put(config, key, value))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["_args_", "_recursive_", "_convert_"])
def test_a_slot_takes_keywords_only(config: Any, place: str, name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is not allowed there"):
        check_names(put(config, place, {name: ["x"]}))


GOOD = {
    "data": "findistill.data.sources.tfns.read",
    "evaluate.also.0": "findistill.data.sources.tfns.read",
    "annotate.ensemble.0.llm": "findistill.llm.endpoint.EndpointEngine",
    "llm": "findistill.llm.in_process.InProcessEngine",
    "callbacks.mine": "pytorch_lightning.callbacks.EarlyStopping",
    "logger.mine": "pytorch_lightning.loggers.CSVLogger",
    "trainer.optimizer": "torch.optim.AdamW",
    "trainer.scheduler": "torch.optim.lr_scheduler.OneCycleLR",
    "distill.terms.mine": "findistill.training.losses.kl.KL",
}


@pytest.mark.parametrize("key", GOOD)
def test_a_slot_takes_what_it_is_for(key: str) -> None:
    assert callable(resolve(GOOD[key], f"{key}._target_"))


@pytest.mark.parametrize("key", GOOD)
def test_and_nothing_that_is_for_another(key: str) -> None:
    for path in GOOD.values():
        if not path.startswith(GOOD[key].rpartition(".")[0].rpartition(".")[0]):
            with pytest.raises(UserError):
                resolve(path, f"{key}._target_")
    with pytest.raises(UserError, match="cannot be loaded"):
        resolve(GOOD[key] + "Nothing", f"{key}._target_")


def test_a_package_is_allowed_by_the_environment_only(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "myown.py").write_text(
        "import shutil\nfrom torch import nn\nfrom findistill.config.targets import target\n"
        "from findistill.training.losses.base import LogitsTerm\nclass Term(LogitsTerm): pass\n"
        "class Other: pass\n"
        "@target('scheduler')\ndef schedule(optimizer, power): return power\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = put(config, "distill.terms.mine", {"_target_": "myown.Term", "weight": 2.0})
    with pytest.raises(UserError, match=r"not allowed: the slot loss term accepts code from .*\n.*FINDISTILL_ALLOW=myown"):
        check_targets(mine)
    monkeypatch.setenv("FINDISTILL_ALLOW", "another, myown")
    check_targets(mine)
    assert build(mine.distill.terms.mine).weight == 2.0
    for path in ("myown.Other", "myown.shutil.copy", "myown.nn", "myown.target", "myown.schedule"):
        with pytest.raises(UserError):
            resolve(path, "distill.terms.mine._target_")
    partial = OmegaConf.create({"trainer": {"scheduler": {"_target_": "myown.schedule", "_partial_": True, "power": 3}}})
    assert build(partial.trainer.scheduler)("optimizer") == 3


def test_a_wrong_keyword_and_nested_values_are_refused(config: Any) -> None:
    with pytest.raises(UserError, match=r"llm: EndpointEngine: .*colour"):
        build(OmegaConf.create({"_target_": "findistill.llm.endpoint.EndpointEngine", "model": "m", "colour": 1}), "llm")
    node = {"_target_": "findistill.training.losses.kl.KL", "reduction": "${oc.create:'{_target_: os.system}'}"}
    with pytest.raises(UserError, match="is not allowed there"):
        build(OmegaConf.create(node), "distill.terms.mine")


def test_a_function_is_registered_for_a_slot_that_exists() -> None:
    with pytest.raises(ValueError, match="'nothing' is not a slot"):
        target("nothing")


@pytest.mark.parametrize("key", ["llm.base_url", "study", "evaluate.also", "prompt.instruction", "llm.extra_body"])
@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${oc.env:HOME} b", "${oc.decode:${oc.env:HOME}}", "${ oc.create:x}"])
def test_the_environment_is_not_copied_into_the_configuration(config: Any, key: str, text: str) -> None:
    with pytest.raises(UserError, match="is not allowed there"):
        check_names(put(config, key, [text]))


@pytest.mark.parametrize("text", ["${${study}.env:HOME}", "${oc.${study}:HOME}", "a ${ ${study}:HOME}"])
def test_the_name_of_a_resolver_is_not_put_together(config: Any, text: str) -> None:
    with pytest.raises(UserError, match="an interpolation cannot be part of a name"):
        check_names(put(config, "prompt.instruction", text))
    check_names(put(config, "prompt.instruction", "${oc.select:${study},x} ${study}"))


def test_a_place_for_the_output_may_come_from_the_environment(config: Any) -> None:
    check_names(put(config, "runs_dir", "${oc.env:HOME}/runs"))


HYDRA = {
    "launcher": ["hydra.launcher._target_=os.system"],
    "sweeper": ["hydra.sweeper._target_=os.system"],
    "callback": ["+hydra.callbacks.x._target_=os.system", "+hydra.callbacks.x.command=true"],
    "callback of a library": ["+hydra.callbacks.x._target_=torch.hub.download_url_to_file"],
    "pickles": ["+hydra.callbacks.x._target_=hydra.experimental.callbacks.PickleJobInfoCallback"],
    "factory of a log": ["hydra/job_logging=default", "+hydra.job_logging.handlers.x.class=os.system"],
    "class of a log": ["hydra/job_logging=default", "hydra.job_logging.handlers.console.class=logging.handlers.SMTPHandler"],
    "object of a log": ["hydra/hydra_logging=default", "hydra.hydra_logging.handlers.console.stream=ext://os.system"],
    "file of a log": ["hydra/job_logging=default", "hydra.job_logging.handlers.file.filename=/tmp/x"],
    "environment": ["+hydra.job.env_set.FINDISTILL_ALLOW=os"],
    "sampler": ["+hydra.sweeper.sampler._target_=os.system"],
    "partial": ["+hydra.launcher._partial_=true"],
}


@pytest.mark.parametrize("way", HYDRA)
def test_hydra_runs_no_code_of_a_configuration(way: str) -> None:
    with shipped():
        config = compose("config", overrides=HYDRA[way],
                         return_hydra_config=True)  # fmt: skip
    with pytest.raises(UserError) as error:
        check_names(config)
    assert str(error.value).startswith("hydra.")


@pytest.mark.parametrize("choice", ["hydra/job_logging=default", "hydra/job_logging=stdout", "hydra/launcher=joblib"])
def test_what_hydra_ships_is_accepted(choice: str) -> None:
    with shipped():
        check_names(compose("config", overrides=[choice], return_hydra_config=True))


def test_commands_of_a_launcher_are_for_the_command_line() -> None:
    launcher = {
        "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        "setup": ["module load cuda"],
    }
    with pytest.raises(UserError, match=r"hydra\.launcher\.setup=.* runs commands: it cannot be set in a file"):
        check_names({"hydra": {"launcher": launcher}})
    check_names({"hydra": {"launcher": launcher, "overrides": {"hydra": ["hydra.launcher.setup=['module load cuda']"]}}})
    check_names({"hydra": {"launcher": {**launcher, "setup": None}}})


def test_a_file_does_not_choose_where_hydra_writes() -> None:
    with pytest.raises(UserError, match=r"hydra\.output_subdir=cron\.d: a file cannot choose where Hydra writes"):
        check_names({"hydra": {"run": {"dir": "."}, "output_subdir": "cron.d"}})
    check_names({"hydra": {"sweep": {"dir": "logs"}, "overrides": {"hydra": ["hydra.sweep.dir=logs"]}}})


def test_a_factory_of_a_log_is_refused() -> None:
    with pytest.raises(UserError, match=r"hydra.job_logging.handlers.x.\(\)=os.mkdir is refused"):
        check_names({"hydra": {"job_logging": {"handlers": {"x": {"()": "os.mkdir", "path": "x"}}}}})


def test_code_of_sections_that_a_job_does_not_read_is_judged_by_name_and_never_imported(config: Any) -> None:
    broken = put(config, "llm", {"_target_": "findistill.llm.nowhere.Engine"})
    check_targets(broken, {"data", "trainer.accelerator"})
    with pytest.raises(UserError, match=r"findistill\.llm\.nowhere\.Engine cannot be loaded"):
        check_targets(broken, {"llm"})
    with pytest.raises(UserError, match=r"torch\.load is not allowed"):
        check_targets(put(config, "llm", {"_target_": "torch.load"}), {"data"})

"""The shipped configuration: where it is, what it offers, and how to compose it."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from findistill.errors import UserError
from findistill.settings.schema import Config, Data


def config_dir() -> Path:
    """`conf/`: inside the package when installed from a wheel, at the top of the checkout otherwise."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def options() -> dict[str, dict[str, str]]:
    """What each group offers: group -> option -> its one-line description, the first comment of its file."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(config_dir().rglob("*.yaml")):
        group = path.parent.relative_to(config_dir()).as_posix()
        if group != ".":
            lines = path.read_text(encoding="utf-8").splitlines()
            first = next((line for line in lines if not line.startswith("# @package")), "")
            found.setdefault(group, {})[path.stem] = first.lstrip("# ") if first.startswith("#") else ""
    return found


def plain(config: Any) -> dict[str, Any]:
    """A configuration, or a part of one, as nested dicts and lists of plain values, every interpolation resolved."""
    value = OmegaConf.to_container(config if OmegaConf.is_config(config) else OmegaConf.structured(config), resolve=True)
    assert isinstance(value, dict)
    return {str(key): inner for key, inner in value.items()}


def data_config(words: str) -> Data:
    """The `data` section for a data set named in a setting, with settings of its own: `fiqa_news classes=2`.

    Raises:
        UserError: no such data set, or it has no such setting.
    """
    name, *settings = words.split()
    if name not in options()["data"]:
        raise UserError(f"{name!r} is not a data set; there are " + ", ".join(sorted(options()["data"])))
    overrides = [f"data={name}", *(f"data.{setting}" for setting in settings)]
    return cast(Data, _composed(overrides, f"data set {words!r}").data)


def with_overrides(config: Config, words: str, key: str) -> Config:
    """The configuration with further overrides, as on the command line: `prompt=cot shots.k=6`.

    A group's option replaces the whole section. `key` names the setting that holds the words, for the errors.

    Raises:
        UserError: no such option or setting.
    """
    base = cast(DictConfig, config).copy()
    groups = [word for word in words.split() if word.partition("=")[0] in options()]
    settings = [word for word in words.split() if word not in groups]
    fresh = _composed(groups, f"{key}: {words!r}")
    with read_write(base), open_dict(base):
        for group in (word.partition("=")[0] for word in groups):
            base[group] = fresh[group]
        for word in settings:
            name, _, value = word.partition("=")
            try:
                OmegaConf.update(base, name, OmegaConf.create(f"v: {value}").v, force_add=False)
            except (OmegaConfBaseException, AttributeError) as error:
                raise UserError(f"{key}: {word}: {str(error).splitlines()[0]}") from error
    return cast(Config, base)


def _composed(overrides: list[str], what: str) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    try:
        if GlobalHydra.instance().is_initialized():
            return compose(config_name="config", overrides=overrides)
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return compose(config_name="config", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{what}: {str(error.__cause__ or error).splitlines()[0]}") from error

"""The shipped configuration: where it is, what it offers, and how to compose it."""

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from findistill.errors import UserError
from findistill.settings.schema import Data


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
            first = path.read_text(encoding="utf-8").partition("\n")[0]
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
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    name, *settings = words.split()
    if name not in options()["data"]:
        raise UserError(f"{name!r} is not a data set; there are " + ", ".join(sorted(options()["data"])))
    overrides = [f"data={name}", *(f"data.{setting}" for setting in settings)]
    try:
        if GlobalHydra.instance().is_initialized():
            return cast(Data, compose(config_name="config", overrides=overrides).data)
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return cast(Data, compose(config_name="config", overrides=overrides).data)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"data set {words!r}: {str(error.__cause__ or error).splitlines()[0]}") from error

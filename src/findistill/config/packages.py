"""Third-party packages: which plugins are installed, whose code a `_target_` may name, and their conf folders.

A package registers itself by an entry point in the group `findistill`, which names one of its modules:

    [project.entry-points.findistill]
    mypackage = "mypackage.findistill"

The environment variable FINDISTILL_ALLOW allows further packages, FINDISTILL_CONF adds further conf folders. A configuration
file can do neither.
"""

import os
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from findistill.errors import UserError

GROUP = "findistill"


@cache
def plugin_entry_points() -> tuple[EntryPoint, ...]:
    """The entry points of installed packages, sorted by name."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name))


def allowed_packages() -> frozenset[str]:
    """Top-level packages whose code a `_target_` may name, in addition to findistill and its dependencies."""
    names = {name.strip() for name in os.environ.get("FINDISTILL_ALLOW", "").split(",")} - {""}
    return frozenset(names | {point.module.partition(".")[0] for point in plugin_entry_points()})


def conf_folders() -> tuple[Path, ...]:
    """Conf folders in addition to findistill's own: those of $FINDISTILL_CONF, then `conf/` beside each package's module.

    Raises:
        UserError: $FINDISTILL_CONF names a folder that does not exist.
    """
    folders = [Path(name).expanduser().resolve() for name in os.environ.get("FINDISTILL_CONF", "").split(os.pathsep) if name]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"FINDISTILL_CONF: {folder}: no such folder; separate several folders with {os.pathsep!r}")
    beside = [package_folder(point.module, "conf") for point in plugin_entry_points()]
    return (*folders, *(folder for folder in beside if folder.is_dir()))


@cache
def package_folder(module: str, *inner: str) -> Path:
    """A folder beside a module's file or, for a package, inside it."""
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    if spec is None:
        return Path(module, *inner)
    folder = spec.submodule_search_locations[0] if spec.submodule_search_locations else Path(spec.origin or module).parent
    return Path(folder, *inner)

"""A study: jobs that belong together. Its record says which settings may differ between them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from findistill.core.files import read_json, write_json
from findistill.errors import UserError

# Anyone may try anything in the unnamed study; a seed is what a study repeats over.
UNCHECKED = "default"
ALWAYS_VARIES = ("seed",)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dict of dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            flat.update(flatten(inner, f"{key}."))
        else:
            flat[key] = inner
    return flat


def admit(folder: Path, name: str, jobs: Iterable[Mapping[str, Any]], varied: Iterable[str]) -> None:
    """Check that `jobs` belong to the study in `folder`, and note the settings they vary.

    Args:
        folder: the study's folder.
        name: the study's name.
        jobs: what determines each job (`findistill.core.run_folder.sections`).
        varied: keys or groups that this command sweeps or that `sweep.vary` allows: `distill.min_agreement`, `data`.

    Raises:
        UserError: a setting outside the varied ones differs from the study's, or the folder belongs to another study.
    """
    path = folder / "study.json"
    record: dict[str, Any] = read_json(path) if path.exists() else {"study": name, "stages": {}}
    if record.get("study") != name:
        raise UserError(
            f"study={name}: {folder} holds the study {record.get('study')!r}.\n"
            "Choose another study=NAME or another runs_dir, or rename the folder back."
        )
    if name == UNCHECKED:
        return
    written = repr(record)
    for job in jobs:
        stage = record["stages"].setdefault(job["stage"], {"varied": [], "fixed": flatten(job)})
        stage["varied"] = sorted({*stage["varied"], *varied, *ALWAYS_VARIES})
        free, fixed, here = stage["varied"], stage["fixed"], flatten(job)
        # A section that only some jobs read differs because of a setting that all of them read: that one is compared.
        compared, read = ({key.partition(".")[0] for key in settings} for settings in (fixed, here))
        fixed.update({key: value for key, value in here.items() if key.partition(".")[0] not in compared})
        differing = [
            key
            for key in sorted({*fixed, *here})
            if key.partition(".")[0] in read
            and fixed.get(key) != here.get(key)
            and not any(key == f or key.startswith(f"{f}.") for f in free)
        ]
        if differing:
            pairs = [(key, fixed.get(key), here.get(key)) for key in differing[:3]]
            values = "; ".join(f"{key}: the study has {before!r}, this command {now!r}" for key, before, now in pairs)
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise UserError(
                f"study={name} has other fixed settings: {values}{more}.\n"
                f"Choose another study=NAME, or let it differ: sweep.vary=[{','.join(differing[:3])}]"
            )
    if repr(record) != written or not path.exists():
        write_json(path, record)

"""Environments of peers: their own packages, with those of this environment (such as torch and transformers) visible."""

import site
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path


def peer_python(folder: Path, module: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that can import `module`; the environment is created if necessary."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        [packages] = folder.glob("lib/python*/site-packages")
        ours = "; ".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
        (packages / "ours.pth").write_text(f"import site; {ours}\n")
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *requirements], check=True)
    return python

"""Imports only go to lower layers, without cycles, and none is inside a function without a stated reason."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_layers_and_circles() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=env)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr


def hidden_imports(source: str) -> list[tuple[int, bool]]:
    """Line of each import inside a function, and whether a comment on it, or above its block, gives the reason."""
    lines = source.splitlines()
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    numbers = {n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}
    imports = []
    for number in sorted(numbers):
        above = number - 2
        while lines[above].strip().startswith(("import ", "from ")):  # the reason is above the block of imports
            above -= 1
        imports.append((number, "#" in lines[number - 1] or lines[above].strip().startswith("#")))
    return imports


def test_an_import_inside_a_function_is_rare_and_has_its_reason_beside_it() -> None:
    imports = {path: hidden_imports(path.read_text(encoding="utf-8")) for path in SOURCES}
    bare = [f"{path.relative_to(ROOT)}:{number}" for path, entries in imports.items() for number, reason in entries if not reason]
    assert not bare, bare
    places = [f"{path.relative_to(ROOT)}:{number}" for path, entries in imports.items() for number, _ in entries]
    assert len(places) <= 10, places


def test_the_check_sees_an_import_without_a_reason() -> None:
    assert hidden_imports("def f():\n    import json\n") == [(2, False)]
    assert hidden_imports("def f():\n    import json  # slow\n") == [(2, True)]


def test_a_module_can_be_read_at_once() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path: n for path, n in lines.items() if n > (150 if path.endswith("/stage.py") else 400)}
    assert sum(path.endswith("/stage.py") for path in lines) >= 9


MODEL_CODE = ("torch", "pytorch_lightning", "transformers.modeling_utils", "transformers.generation", "sympy")
OF_RESPONSES = ("annotate", "extract", "fewshot", "review", "evaluate", "report", "status")  # they read or request responses


@pytest.mark.parametrize(("modules", "heavy"), [
    ([f"{name}.stage" for name in OF_RESPONSES], MODEL_CODE),
    (["predict.stage", "predict.local_engine"], (*MODEL_CODE, "sklearn")),
])  # fmt: skip
def test_what_runs_no_model_of_torch_does_not_load_its_code(modules: list[str], heavy: tuple[str, ...]) -> None:
    """It costs seconds at start-up and 150 MB in each process, including workers that predict with ONNX files."""
    names = ", ".join(f"findistill.methods.{module}" for module in modules)
    program = f"import sys, {names}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"

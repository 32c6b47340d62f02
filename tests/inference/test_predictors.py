"""What opening a predictor loads, in a process of its own."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "sklearn", "pytorch_lightning", "transformers.modeling_utils", "transformers.generation", "sympy")


@pytest.mark.parametrize("module", ["local_engine", "stage"])
def test_an_onnx_file_is_opened_without_the_code_of_models(module: str) -> None:
    """It would take three times the memory in each worker process, and seconds before the first row."""
    module = f"findistill.methods.predict.{module}"
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"

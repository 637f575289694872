# make demo   sets up .venv, runs the main job on real data, ends with the path of its page
# make test   sets up .venv, passes the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Small matrices on several threads are slower than on one, and several runtimes fight.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test check slow docs format clean setup
.DEFAULT_GOAL := demo

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geomem needs Python 3.11 or newer; pass PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/geomem demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: setup  ## science that takes minutes
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sphinx-build --quiet --fail-on-warning --fresh-env --tag without_source --builder html docs docs/_build

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs docs/_build

clean:
	rm -rf docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

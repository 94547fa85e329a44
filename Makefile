# Two commands for a fresh machine with Python 3.11 or newer: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# beside the environment with transformers 5, one with transformers 4
OLD := $(VENV)/transformers4

.PHONY: demo test slow test-matrix check bench docs clean

demo: $(VENV)/.library
	$(BIN)/illada demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

slow: $(VENV)/.dev
	ILLADA_SLOW=1 $(BIN)/python -m pytest -m slow

test-matrix: $(VENV)/.dev $(OLD)/.test
	$(BIN)/python -m pytest -q tests/transformers
	$(OLD)/bin/python -m pytest -q tests/transformers

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

bench: $(VENV)/.library
	$(BIN)/python benchmarks/train_step.py

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site

# Each stamp is as new as the install it stands for; the constraints pin every version that is installed.
$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("illada needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/.library: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

$(VENV)/.docs: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --group docs
	touch $@

# what the second file pins, the first need not
$(OLD)/.test: $(VENV)/.created pyproject.toml constraints.txt constraints-transformers4.txt
	$(PYTHON) -m venv $(OLD)
	awk -F== 'NR == FNR {other[$$1]; print; next} !($$1 in other)' constraints-transformers4.txt constraints.txt \
		> $(OLD)/constraints.txt
	$(OLD)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(OLD)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(OLD)/constraints.txt \
		--editable ".[transformers]" accelerate beartype pytest pytest-timeout
	touch $@

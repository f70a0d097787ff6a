# make demo and make test are all the set-up there is: each makes the environment first, if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test docs format wheels clean

demo: $(INSTALLED)
	$(BIN)/pixelcnn demo --out demo --overwrite

test: $(INSTALLED) docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Into build/docs, without a network. All is read anew each time (-E -a), or a second run would find no fault.
docs: $(INSTALLED)
	$(BIN)/sphinx-build -E -a -q -n -W --keep-going docs build/docs

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The package and its zoo, built, checked, and installed into an environment that has nothing else.
wheels: $(INSTALLED)
	rm -rf dist build/empty
	$(BIN)/pip install --quiet --constraint constraints.txt build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist zoo
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/pip install --quiet --constraint constraints.txt torch
	build/empty/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd build && empty/bin/pixelcnn models && empty/bin/pixelcnn evaluate photos-pyramid --limit 1
	ls -l dist

clean:
	rm -rf $(VENV) demo build dist

# torch goes first and alone: pip finds its CPU build beside the registry's where one is configured, and what comes after
# is satisfied with it.
$(INSTALLED): pyproject.toml zoo/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./zoo
	touch $@

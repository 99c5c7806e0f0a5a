# run · test · site · torture · lab · playground · bench · clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= full
KILLS ?= 20

.PHONY: run test site torture lab playground bench clean

run: $(VENV)/ready
	$(BIN)/vqlib run --profile $(PROFILE) --out build

test: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/codespell
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests

site: $(VENV)/ready
	$(BIN)/python -m vqlib.suite.site build build/site

torture: $(VENV)/ready
	$(BIN)/python -m tests.torture.kills --kills $(KILLS)
	$(if $(STEPS),$(BIN)/python -m tests.torture.endurance --steps $(STEPS) --minutes $(or $(MINUTES),0))

lab: $(VENV)/ready
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --MappingKernelManager.transport_encryption=auto \
		--LabApp.default_url=/lab/tree/notebooks/01_reproduce_collapse.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root)

playground: $(VENV)/ready
	$(BIN)/python -m vqlib.playground.page $(VOILA)

bench: $(VENV)/ready
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf build data/cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vqlib needs Python 3.11 or newer, this is %s; try: make PYTHON=python3.11 run" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

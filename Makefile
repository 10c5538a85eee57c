# Two commands for a fresh machine: `make run` and `make test`. Everything lives in .venv.
VENV ?= .venv
PYTHON ?= python3
EXTRAS ?= dashboard,dev
BIN := $(VENV)/bin

.PHONY: install run test soak lint format docs bench bench-cuda bench-scale publish clean

comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

run: install
	$(BIN)/ablate run benchmark.yaml
	$(BIN)/ablate report unet-ablation

# Two processes: one for the tests that start and kill processes, one for all others.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# A thousand tiny trials under 55 kills, suspensions, second runs and a full disk, beside an undisturbed run: minutes.
# SOAK='--seed 7' repeats one; the report goes into docs/reliability.md.
soak: install
	$(BIN)/python -m tests.soak.soak --report benchmarks/results/soak $(SOAK); code=$$?; \
	    $(BIN)/python -m tests.reliability; exit $$code

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in build/site; the pages of study files, commands and frames are written from the code.
docs: install
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.compare

# On a machine with a GPU; can be stopped and goes on. CAMVID=<folder with the images>; docs/gpu.md says the rest.
CAMVID ?= data/camvid

bench-cuda: install
	$(BIN)/pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.probes
	$(BIN)/python -m benchmarks.cuda --root $(CAMVID)

bench-scale: install
	$(BIN)/python -m benchmarks.scale

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

# What a reader needs of results/$(STUDY), below results/published/: page, figure, tables, records; not weights and predictions.
publish: install
	$(BIN)/python -m benchmarks.publish $(STUDY)

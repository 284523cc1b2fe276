# make demo : install for use, then the pose of the head in two real fetal stacks
# make test : install for development, then every check
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= build/demo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint check docs clean help
help:            ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile

demo: $(VENV)/.stamp-demo  ## two minutes after installation; no network once installed
	$(BIN)/equivox demo --out $(DEMO) --overwrite

test: $(VENV)/.stamp-dev lint  ## style, types, architecture, then the tests
	$(BIN)/python -m pytest -q -n auto --dist worksteal

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.stamp-docs  ## the pages, in docs/_build/html
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

$(VENV)/.stamp-venv:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@
$(VENV)/.stamp-demo: $(VENV)/.stamp-venv pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e ".[mri]"
	touch $@
$(VENV)/.stamp-dev: $(VENV)/.stamp-demo
	$(BIN)/pip install -q -c constraints.txt -e ".[mri,cryo,shapes,train,cluster,export,dev]"
	touch $@
$(VENV)/.stamp-docs: $(VENV)/.stamp-dev
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	touch $@
clean:
	rm -rf build $(VENV)

# Two commands on a machine with Python 3.11 or newer and make: `make demo` and `make test`.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { command -v $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes: more only pay with more cores. Tests that share what is compiled stay in one
# (tests/conftest.py).
JOBS ?= 2
PYTEST = $(BIN)/pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test slow check docs package experiments notebooks clean

demo: $(VENV)/.installed
	$(BIN)/homojax sweep --config experiments/demo.toml --out runs/demo --overwrite

test: $(VENV)/.installed-test
	$(PYTEST)

slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

check: $(VENV)/.installed-dev docs package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/codespell *.md docs homojax experiments notebooks

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs . docs/_build/html
	@! grep -rnoE '<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//[^"]+' --include='*.html' \
	  docs/_build/html || { echo "a page asks the network for something" >&2; exit 1; }

# Everything of experiments/README.md, in its quick size.
experiments: demo $(VENV)/.installed-test
	for name in $$(cd experiments && grep -l -e '--quick' *.py); do \
	  $(BIN)/python experiments/$$name --quick || exit; done
	$(BIN)/python experiments/truncation.py --cells 500

# The wheel, in an environment of its own and from an empty folder.
package: $(VENV)/.installed-dev
	rm -rf dist $(VENV)/wheel && $(BIN)/python -m build >/dev/null
	$(PYTHON) -m venv $(VENV)/wheel
	$(VENV)/wheel/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt dist/*.whl
	$(VENV)/wheel/bin/python tests/from_the_wheel.py

notebooks: $(VENV)/.installed-test
	$(BIN)/python notebooks/execute.py

clean:
	rm -rf $(VENV) runs dist docs/_build

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "homojax needs Python 3.11, 3.12 or 3.13; name one with make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,notebooks]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

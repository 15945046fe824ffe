# Every command of the course. `make` alone lists them.
# Each one first sets up .venv, once: a second call starts at once.

PYTHON ?= python3
ARGS ?=
NB ?=

BIN := .venv/bin
STAMP := .venv/.stamp
BOOK_STAMP := .venv/.stamp-book
BENCH_STAMP := .venv/.stamp-bench
CLASS_STAMP := .venv/.stamp-classroom
EXPORT_STAMP := .venv/.stamp-export
CORE_TESTS = $(wildcard $(patsubst annotated_transformer/%.py,tests/test_%.py, \
  $(wildcard annotated_transformer/*.py)))
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help lab test notebooks sync check wheel lowest book book-serve bench classroom

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | \
	  awk -F'|' '{ printf "  %-16s %s\n", $$1, $$2 }'

lab: $(STAMP) ## Open the course in JupyterLab (on a server: ARGS="--no-browser")
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.root_dir="$(CURDIR)" \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

test: $(BOOK_STAMP) $(CLASS_STAMP) $(EXPORT_STAMP) ## Run every test, and every notebook against its stored outputs
	$(BIN)/python -m pytest -n 2 --dist loadfile \
	  --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks $(ARGS)

notebooks: $(STAMP) ## Run the notebooks, store outputs (some: NB="notebooks/02*.ipynb")
	$(BIN)/python -m tools.run_notebooks $(NB)

sync: $(STAMP) ## Copy the package's definitions into the notebooks, minutes into teach.md
	$(BIN)/python -m tools.sync
	$(BIN)/python -m tools.syllabus

check: $(STAMP) ## Lint, format check and types; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

wheel: $(STAMP) ## Build the package for Colab and for students: dist/*.whl
	rm -rf dist
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

lowest: ## Test the package on the lowest versions allowed (TORCH="torch==2.13.0")
	rm -rf .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python tools/lowest.py $(TORCH) > .venv-lowest/floors.txt
	.venv-lowest/bin/python -m pip install -c .venv-lowest/floors.txt -e ".[lab,test]"
	# Old releases may warn of newer ones; here, that is no error.
	.venv-lowest/bin/python -m pytest -o filterwarnings=default $(CORE_TESTS) $(ARGS)

book: $(BOOK_STAMP) ## Build the web book (needs npm): book/_build/site
	$(BIN)/python -m tools.book build

book-serve: $(BOOK_STAMP) ## Serve the book that was built (another port: ARGS="--port 9000")
	$(BIN)/python -m tools.book serve $(ARGS)

bench: $(BENCH_STAMP) ## Compare the speed with other libraries (more to install)
	$(BIN)/python -m benchmarks $(ARGS)

classroom: $(CLASS_STAMP) ## Set up nbgrader, and open the assignments (book/teach.md)
	cd assignments && ../$(BIN)/jupyter lab \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# A stamp is written last, so a failed or interrupted set-up is tried again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { \
	  echo "No '$(PYTHON)' here. Install Python 3.11 or newer," \
	    "or name yours: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The course needs Python 3.11 or newer; '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "'$(PYTHON)' has no venv module." \
	    "On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Setting up .venv: about 2 GB, once. This takes a few minutes."
	$(PYTHON) -m venv .venv
	# torch first: by far the largest, and kept if a later download fails.
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(INSTALL) -e ".[lab,test]"
	@touch $@

$(CLASS_STAMP): $(STAMP)
	$(INSTALL) -e ".[classroom]"
	@touch $@

$(BOOK_STAMP): $(STAMP)
	$(INSTALL) -e ".[book]"
	@touch $@

$(EXPORT_STAMP): $(STAMP)
	$(INSTALL) -e ".[export]"
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(INSTALL) -e ".[bench]"
	@touch $@

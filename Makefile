# `make book` builds the site, `make test` runs everything that CI runs; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Small matrix products run many times slower when two BLAS threads share a busy core.
export OPENBLAS_NUM_THREADS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# --all: a page is stale when vilogit changes, which Sphinx does not see.
BUILD := $(BIN)/jupyter-book build . --all -W -n --keep-going

SITE := import sysconfig; print(sysconfig.get_path("purelib"))
PYTEST := $(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder
ON_PAGES := tests/browser tests/test_built.py tests/test_elsewhere.py tests/test_licences.py \
    tests/test_published.py

.PHONY: book test units anywhere matrix serve lab notebooks pdf bench-pages refresh lint lock audit \
    mutants fuzz bench trust response real-data clean

book: $(VENV)/.ready
	$(BUILD)
	@echo "Open _build/html/index.html, or run 'make serve'."

# The build is one process: the tests that need no page run beside it, and give way to it.
test: $(VENV)/.ready
	tools/browser.sh
	$(MAKE) --jobs=2 --output-sync book units
	[ -z "$$BOOK_SITE_URL" ] || $(BIN)/python tools/pdf.py  # a published site links it
	$(PYTEST) $(ON_PAGES)

# The build runs the notebooks on this processor's own kernels, nbval on a foreign one's.
units: $(VENV)/.ready
	$(BIN)/python tools/anywhere.py --kernelspec
	nice $(PYTEST) --nbval --nbval-kernel-name=foreign tests book $(ON_PAGES:%=--ignore=%)

# The better part of an hour: never part of `make test`. ARGS names the kernels to try.
anywhere: $(VENV)/.ready
	$(BIN)/python tools/anywhere.py $(ARGS) --without $(ON_PAGES)

# Every Python that is here, newest packages, oldest packages. Needs the network.
matrix: $(VENV)/.ready
	$(BIN)/python tools/matrix.py $(ARGS) --without $(ON_PAGES)

serve: book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

# What the published workflow puts on a branch of its own, for Colab and Binder.
notebooks: book
	$(BIN)/python tools/notebooks_branch.py

# The chapters in JupyterLab, the first one open. ARGS=--allow-root where there is no other user.
lab: $(VENV)/.ready
	JUPYTER_CONFIG_PATH=$(CURDIR)/tools/lab $(BIN)/jupyter lab book/01_softmax_jacobian.ipynb $(ARGS)

pdf: book
	tools/browser.sh
	$(BIN)/python tools/pdf.py

bench-pages: book
	tools/browser.sh
	$(BIN)/python tools/bench_pages.py

refresh: $(VENV)/.ready
	$(BIN)/python tools/refresh.py
	$(BIN)/python tools/picture.py

lint: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock: $(VENV)/.ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --no-header --no-emit-package vilogit \
	    requirements.txt pyproject.toml --extra test -o requirements.lock

# Needs the network: never part of `make test`.
audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	tools/audit.sh $(VENV)/audit/bin/pip-audit

# The better part of an hour: never part of `make test`. ARGS names the mutants to run again.
mutants: $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)/mutmut
	$(BIN)/python -c '$(SITE)' > $$($(VENV)/mutmut/bin/python -c '$(SITE)')/project.pth
	$(VENV)/mutmut/bin/pip install --quiet mutmut==3.8.1
	$(if $(ARGS),,rm -rf mutants)
	mkdir -p mutants/benchmarks  # where mutmut copies the sets to
	$(VENV)/mutmut/bin/mutmut run $(ARGS)
	$(BIN)/python tools/mutation_score.py

fuzz: $(VENV)/.ready
	$(BIN)/python tests/fuzz.py 10000 $(SEED)

bench: benchmarks/.venv/.ready
	cd benchmarks && .venv/bin/python run.py $(ARGS)

trust: benchmarks/.venv/.ready
	cd benchmarks && .venv/bin/python trust.py $(ARGS)

# Chapter 8's numbers: a quarter of an hour or so.
response: $(VENV)/.ready
	$(BIN)/python benchmarks/response.py $(ARGS)

# Chapter 7's numbers: a quarter of an hour or so.
real-data: $(VENV)/.ready
	$(BIN)/python benchmarks/real_data.py $(ARGS)

benchmarks/.venv/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/pip install --quiet -r benchmarks/requirements.txt
	benchmarks/.venv/bin/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf _build mutants $(VENV) .pytest_cache .ruff_cache .hypothesis

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

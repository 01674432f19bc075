# Two commands: `make book` and `make test`. Nothing but python3 and make is needed beforehand.
#
#   make book                 the synthetic cohorts, every notebook for three tasks, the book
#   make book OVERLAY=        the same at the paper's scale, on your own download (see README.md)
#   make book TASKS=nsclc     one task only
#   make real                 the real data of MMMIL_REAL_DATA, then the book with their pages
#   make lab                  JupyterLab, on a start page
#   make pdf | test | test-slurm | test-browser | test-changes | test-container | lint | lock | clean

PYTHON  ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
TASKS   ?= lgg nsclc brca
OVERLAY ?= demo
CORES   ?=
PROFILE ?= local
# Patients with both modalities, in random folds and by site; then pixels without patients, counts, one slide.
REAL_TASKS ?= real_lgg real_lgg_sites real_nsclc_zscores real_nsclc_zscores_sites real_lc25000 real_nsclc real_slide

BIN   := .venv/bin
STAMP := .venv/.installed
RUN    = $(BIN)/python workflow/run.py $(if $(CORES),--cores $(CORES)) --profile $(PROFILE)

# One thread per process: Snakemake runs as many jobs as there are cores, and results are bit-identical.
OMP_NUM_THREADS ?= 1
OPENBLAS_NUM_THREADS ?= 1
MKL_NUM_THREADS ?= 1
export OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS
# The kernel named python3 is this environment's, whatever else the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := book
.PHONY: book pdf real test test-slurm test-browser test-changes test-container lint lab lock clean env

book: $(STAMP)
	$(RUN) --tasks $(TASKS) --overlay "$(OVERLAY)"

real: $(STAMP)
	$(RUN) --tasks $(REAL_TASKS) --overlay ""

# The book of `make book` once more, as one page, printed by Chromium (Debian's chromium): _build/book.pdf.
pdf: $(STAMP)
	@test -f _build/toc.yml || { echo "error: there is no book to print; run make book first" >&2; exit 1; }
	@{ command -v chromium || command -v google-chrome; } > /dev/null || \
		{ echo "error: a PDF needs Chromium (Debian's package chromium)" >&2; exit 1; }
	$(BIN)/jupyter-book build . --toc _build/toc.yml --builder singlehtml
	$(BIN)/python workflow/pdf.py _build/singlehtml book/intro.html _build/book.pdf

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# On a Slurm of its own, which needs Debian's slurm-wlm, slurmdbd, mariadb-server and munge. One after the other: a lost
# node is a test's, too.
test-slurm: $(STAMP)
	$(BIN)/python -m pytest -m slurm tests/slurm

# The Dockerfile's steps in a bare Debian in a folder: root and Debian's debootstrap, no container engine.
test-container: $(STAMP)
	$(BIN)/python -m pytest -m container tests/container

# Every page of the built book in Chromium (Debian's chromium), which is never fetched. BOOK=<folder> names another book
# than that of `make book`, PICTURES=all keeps a picture of every page; the report is _build/browser/report.md.
test-browser: $(STAMP)
	MMMIL_BOOK="$(BOOK)" MMMIL_PICTURES="$(PICTURES)" $(BIN)/python -m pytest -m browser tests/browser

# Every notebook with each of the changes that its last cell names, on a tiny cohort: half an hour or so.
test-changes: $(STAMP)
	$(BIN)/python -m pytest -m changes tests/book

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

lab: $(STAMP)
	PYTHONWARNINGS="ignore:IProgress not found" $(BIN)/jupyter lab --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/notebooks/index.ipynb

# The environment: a plain venv, uv inside it, and the one version list. Certificate and proxy variables pass through.
# Libraries are compiled here, once: where PYTHONDONTWRITEBYTECODE is set, as containers do, each of the batch's hundreds
# of processes would compile torch anew, which takes longer than its import.
env: $(STAMP)
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit("Python 3.11 or 3.12 is needed; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % v)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Works before the environment exists and after pyproject.toml has changed. `make lock UPGRADE=--upgrade` takes newer versions.
lock:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile -q $(UPGRADE) --universal --generate-hashes --group dev --no-annotate --no-header \
		--python-version 3.11 pyproject.toml -o requirements.lock

# Keeps the environment and data/: results, pages and the book are made again.
clean:
	rm -rf _build book/executed book/generated results logs .snakemake

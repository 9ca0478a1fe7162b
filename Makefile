# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test checks tests fast lint docs figures bench phases clean

# Python keeps what it has compiled, whatever the shell says: each of dozens of processes would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

# The environment, rebuilt when the project's requirements change. What is imported is compiled then: all 20 000 files
# of it would take a minute and a half.
.venv/.ready: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c requirements.lock -e ".[dev]"
	touch $@

demo: .venv/.ready
	$(BIN)/brdyn report --model imgfocus_vits14 --model cifar_vit12 --twin --images samples --fast --out runs/demo --overwrite

test: checks tests

# Each takes a minute or so on one core.
checks: .venv/.ready
	$(MAKE) --no-print-directory -j 2 lint docs

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As many tests side by side as there are cores, each on one; the committed notebooks run again among them.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 8 --dist worksteal
tests: .venv/.ready
	$(PYTEST)

fast: .venv/.ready
	$(PYTEST) -m "not slow"

docs: .venv/.ready
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Runs the notebooks in place, to commit them executed.
figures: .venv/.ready
	$(BIN)/jupyter-execute --inplace figures/*.ipynb
	$(BIN)/ruff format -q figures

bench: .venv/.ready
	$(BIN)/python -m analyses.bench_segment
	$(BIN)/python -m analyses.bench_capture
	$(BIN)/python -m analyses.bench_dynamics
	$(BIN)/python -m analyses.bench_splice
	$(BIN)/python -m analyses.bench_raptor
	$(BIN)/python -m analyses.bench_vitrm
	$(BIN)/python -m analyses.bench_probe
	$(BIN)/python -m analyses.precision
	$(BIN)/python -m analyses.end_to_end
	$(BIN)/python -m analyses.pages

# The recorded phases of the offline model by every similarity, and of untrained twins: make phases IMAGES=photos.parquet
IMAGES ?= samples
OF_OFFLINE = $(BIN)/brdyn phases --model imgfocus_vits14 --images $(IMAGES) --out analyses/results/phases/imgfocus_vits14
phases: .venv/.ready
	$(OF_OFFLINE) --overwrite
	for kind in token-cosine cka procrustes; do $(OF_OFFLINE)_$$kind --similarity $$kind --overwrite || exit 1; done
	for seed in 0 1 2; do $(OF_OFFLINE)_random$$seed --init random --seed $$seed --overwrite || exit 1; done

clean:
	rm -rf .venv build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

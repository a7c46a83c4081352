# Needs Python 3.11 or newer and make, nothing else: `make scan` sets up .venv by itself.
# Nothing here is newer than make 3.81, which macOS has; every path is relative, so the checkout may lie anywhere.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

# On a terminal pip shows its progress; elsewhere (CI, a log) each step is one line and pip speaks up only to fail.
PIP_QUIET := $(shell test -t 2 || echo -qq)
PIP_INSTALL = .venv/bin/python -m pip install --disable-pip-version-check --no-input $(PIP_QUIET) -c requirements.lock
say = @echo "make: $(1)" >&2

NEW_ENOUGH = "$(PYTHON)" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "make: no Python 3.11 or newer with venv found; install one (on Debian python3-venv too)," \
	"or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }

LOCK_TORCH = $(shell sed -n 's/^torch==//p' requirements.lock)

.PHONY: help scan test lint bench calibrate format sae lock clean

help:
	@echo "make scan    run the quickstart study; its report is results/quickstart/report.html (ARGS=... goes to scan)"
	@echo "make test    run the tests (ARGS=... goes to pytest)"
	@echo "make lint    check style, types and the direction of imports"
	@echo "make bench   measure recording against the bare forward and other tools, in an environment of theirs (an hour)"
	@echo "make calibrate  measure how often the gate errs, in simulated worlds (hours; ARGS='--studies 300 --seeds 12' is shorter)"
	@echo "make format  let ruff mend the style"
	@echo "make sae     add sae-lens to .venv, for the analyses that read sparse autoencoders (heavy)"
	@echo "make lock    resolve the newest versions anew and write requirements.lock"
	@echo "make clean   remove .venv and caches; results/ stays"

scan: .venv/.installed
	.venv/bin/scan protocols/quickstart.yaml $(ARGS)

# Two at a time, a file by one: each may hold a model, and two fit into the memory of a laptop.
test: .venv/.installed-test .venv-s3/.installed
	.venv/bin/pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/.installed-lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/lint-imports --no-logo

# Writes what docs/calibration.md and the appendix of reports tell; takes hours, and goes on where it was interrupted.
# Rows that ship stand where their code is as it was.
calibrate: .venv/.installed-test
	mkdir -p results/calibration
	test -f results/calibration/calibration.json || cp protocols/report/calibration.json results/calibration/
	OMP_NUM_THREADS=1 .venv/bin/scan calibrate $(ARGS)
	cp results/calibration/calibration.md docs/calibration.md
	cp results/calibration/calibration.json protocols/report/calibration.json

# Others' tools pin what they need; they are measured in an environment of their own.
bench: .venv/.installed .venv-peers/.installed
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.analyses
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.weights --make
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.weights
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.causal --peers .venv-peers/bin/python
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.scanner --peers .venv-peers/bin/python $(ARGS)

.venv-peers/.installed: benchmarks/peers.txt
	@$(NEW_ENOUGH)
	$(call say,installing the peers into .venv-peers (heavy))
	@"$(PYTHON)" -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip install --disable-pip-version-check $(PIP_QUIET) -r benchmarks/peers.txt
	@touch $@

# A server of S3 that tests start; what it needs does not go with what lmfmri needs.
.venv-s3/.installed: tests/s3.txt
	@$(NEW_ENOUGH)
	$(call say,installing a server of S3 for the tests into .venv-s3)
	@"$(PYTHON)" -m venv --clear .venv-s3
	@.venv-s3/bin/python -m pip install --disable-pip-version-check --no-input $(PIP_QUIET) -r tests/s3.txt
	@touch $@

format: .venv/.installed-lint
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

sae: .venv/.installed-sae

# The stamps are younger than what they were made from, or the installation is made good. A .venv
# that works is kept (it may hold a torch chosen by hand), one whose Python is gone is made anew.
.venv/.installed: pyproject.toml requirements.lock
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || { \
		$(NEW_ENOUGH); \
		echo "make: creating .venv with $(PYTHON)" >&2; \
		"$(PYTHON)" -m venv --clear .venv; }
	$(call say,installing lmfmri and what it needs into .venv (once; a few minutes))
	@$(PIP_INSTALL) -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(call say,installing what the tests need into .venv)
	@$(PIP_INSTALL) -e ".[test]"
	@touch $@

.venv/.installed-lint: .venv/.installed
	$(call say,installing what the checks need into .venv)
	@$(PIP_INSTALL) -e ".[lint]"
	@touch $@

.venv/.installed-sae: .venv/.installed
	$(call say,installing sae-lens and what it needs into .venv)
	@$(PIP_INSTALL) -e ".[sae]"
	@touch $@

# torch moves by hand: change its line in requirements.lock first, and the lock is resolved around it.
lock:
	@$(NEW_ENOUGH)
	$(call say,resolving anew around torch $(LOCK_TORCH); .venv stays as it is)
	@rm -rf .venv-lock requirements.lock.new
	@"$(PYTHON)" -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --disable-pip-version-check $(PIP_QUIET) --upgrade pip setuptools
	@.venv-lock/bin/python -m pip install --disable-pip-version-check $(PIP_QUIET) torch==$(LOCK_TORCH) -e ".[dev,sae]"
	@grep '^#' requirements.lock > requirements.lock.new
	@.venv-lock/bin/python -m pip list --disable-pip-version-check --format=freeze --exclude pip --exclude lmfmri 2>/dev/null \
		| sed -E -e 's/\+[^ ]*$$//' -e '/^(nvidia-|cuda-|triton)/d' | LC_ALL=C sort -f -t= -k1,1 >> requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock .venv-peers .venv-s3 requirements.lock.new build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

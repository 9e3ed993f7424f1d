# Every target starts from a bare clone and is safe to repeat.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The example pipelines run on Linux with Python 3.11. They install no torch: see below.
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/lock/bin/uv pip compile --quiet --upgrade --generate-hashes \
	--no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint constraints.txt

export APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED := true
export APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL := true
export ORT_DISABLE_TELEMETRY := 1
export PF_TRACING_SKIP_LOCAL_SETUP := true
# The pip of Python 3.11 warns of two packages without it; newer ones build all packages so.
export PIP_USE_PEP517 := 1
export PYTHONUTF8 := 1

.PHONY: quickstart test test-slow test-long bench fuzz docs release lint format lock clean remove
.DELETE_ON_ERROR:

## quickstart: install, then fine-tune, serve, connect, chat and evaluate on this machine
# MODEL=tiny is the fast one. See `phi3 quickstart --help` for other models.
MODEL = smollm2
quickstart: $(VENV)/.local
	$(BIN)/phi3 quickstart --model "$(MODEL)"

# A worker that dies ends the run. Otherwise the others would wait for ever for the tests that it had taken.
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --max-worker-restart 0

## test: install, then lint, type-check and run the tests
test: $(VENV)/.dev
	$(MAKE) lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not long" --cov --cov-report term

## test-slow: the tests that take more than 20 seconds each, and journeys
# Load tests measure memory and need the machine for themselves.
LOAD_TESTS = tests/phi3_ops/endpoint/test_load.py
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow --timeout 2400 --ignore $(LOAD_TESTS)
	$(BIN)/python -m pytest -m slow --timeout 2400 $(LOAD_TESTS)

## test-long: the tests that build images, install environments, or repeat many tests: up to an hour
test-long: $(VENV)/.dev
	@command -v buildah >/dev/null || { apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends buildah crun debootstrap; }
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long --timeout 3600

## bench: the benchmarks; each prints a table and writes JSON to bench/
bench: $(VENV)/.bench
	@mkdir -p bench
	failed=0; for file in tests/benchmarks/*.py; do \
		$(BIN)/python $$file --json bench/$$(basename $$file .py).json || failed=1; done; exit $$failed

## fuzz: ten minutes of hostile input for each of the endpoint, the served flow and the client
SECONDS_EACH ?= 600
fuzz: $(VENV)/.dev
	failed=0; for name in endpoint serve client; do \
		$(BIN)/python tests/fuzz/$$name.py $(SECONDS_EACH) || failed=1; done; exit $$failed

## docs: build the documentation site into site/; open site/index.html
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

## release: build the release into dist/ and check it; nothing is uploaded
release: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python tests/support/release.py dist
	$(BIN)/python -m pytest -m slow --timeout 2400 tests/test_installed_wheel.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## lock: write the versions and hashes of what the example pipelines install
lock: $(VENV)/lock
	$(COMPILE) --extra azure --extra eval --output-file examples/ci/requirements.lock pyproject.toml
	$(COMPILE) --output-file examples/ci/tools.lock examples/ci/tools.in

## remove: undo a quickstart
remove: $(VENV)/.local
	$(BIN)/phi3 quickstart --remove

clean:
	rm -rf $(VENV) dist bench site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*

# torch first and by its exact version: anything else would pull another, far larger build.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or print("The pinned versions are tested with \
	Python 3.11, and this is %d.%d. If the installation fails: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing PyTorch into $(VENV): about a minute, the first time only"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0
	@touch $@

$(VENV)/.local: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "Installing this package and its requirements into $(VENV): about a minute, the first time only"
	$(PIP) install --constraint constraints.txt --editable '.[local,promptflow,train,serve,eval]'
	@# pip leaves the bytecode out where PYTHONDONTWRITEBYTECODE is set, and imports take twice as long
	@$(BIN)/python -m compileall -q $(VENV)/lib >/dev/null || true
	@touch $@

$(VENV)/.dev: $(VENV)/.local tests/fake_azure/package.json
	@echo "Installing what the tests need into $(VENV): two to four minutes, the first time only"
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@command -v npm >/dev/null || { apt-get update -qq && apt-get install -y -qq nodejs npm; }
	npm ci --prefix tests/fake_azure --no-audit --no-fund --silent
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	$(MAKE) $(VENV)/server $(VENV)/after
	@$(BIN)/python -m compileall -q $(VENV)/lib >/dev/null || true
	@touch $@

# What Azure runs around score.py needs an older OpenTelemetry than Prompt flow serves with: so it has an
# environment of its own, which sees the large packages of the other.
$(VENV)/server: tests/serving/inference-server.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	$(BIN)/python -c "import site; print(*site.getsitepackages())" > "$$($@/bin/python -c \
		'import site; print(site.getsitepackages()[0])')/shared.pth"
	@touch $@

# Life after Prompt flow: Agent Framework needs a newer OpenTelemetry than Prompt flow, so the two cannot share an
# environment. The models' large packages are those of the other one.
$(VENV)/after: pyproject.toml constraints.txt tests/support/shared_packages.py | $(VENV)/.local
	$(PYTHON) -m venv $@
	grep -v '^opentelemetry' constraints.txt > $@/constraints.txt
	$@/bin/python -m pip --disable-pip-version-check --quiet install --constraint $@/constraints.txt \
		--editable '.[local,eval,agent-framework]' azure-ai-evaluation pytest pytest-timeout
	$(BIN)/python tests/support/shared_packages.py $@ torch transformers peft trl tokenizers gguf openvino llguidance
	@touch $@

$(VENV)/lock: constraints.txt
	$(PYTHON) -m venv $@
	$@/bin/python -m pip --disable-pip-version-check --quiet install --constraint $< uv
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@touch $@

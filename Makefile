# Needs Python 3.11 or newer with venv, a C++ compiler, make. `make help` lists what there is to do.

PYTHON ?= python3
# For users behind a proxy or a mirror, such as: make demo PIP_FLAGS="--proxy http://localhost:3128"
PIP_FLAGS ?=
# How llama.cpp is compiled. Without "native", what is compiled here also runs on the machine next door, and on virtual
# machines that announce instructions (AMX) which they do not allow. Set your own for a GPU: CMAKE_ARGS="-DGGML_CUDA=ON".
export CMAKE_ARGS ?= -DGGML_NATIVE=OFF
# For a part of the tests, such as: make test PYTEST_ARGS="-k budget -x"
PYTEST_ARGS ?=
BENCH_ARGS ?=

# Paths are relative, and so work in a folder with spaces in its name.
RUN := .venv/bin/python -m

# Two targets must not install into one environment at the same time.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test coverage serve lint docs bench bench-effects bench-rain bench-soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed-demo ## see what each method mends: a table, then a story of each (a minute at most)
	@.venv/bin/correction-graphs demo

test: .venv/.installed-dev ## run all tests
	LANGSMITH_TRACING=false $(RUN) pytest $(PYTEST_ARGS)

coverage: .venv/.installed-dev ## run all tests and count which lines and branches of the package they reach; build/coverage has it as pages
	LANGSMITH_TRACING=false $(RUN) pytest --cov --cov-report=term:skip-covered --cov-report=html:build/coverage $(PYTEST_ARGS)

serve: .venv/.installed-dev ## serve the graphs of langgraph.json at http://127.0.0.1:2024, for development
	LANGGRAPH_CLI_NO_ANALYTICS=1 .venv/bin/langgraph dev --no-browser --no-reload

lint: .venv/.installed-dev ## check style, format and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

docs: .venv/.installed-dev ## build the documentation into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build

bench-effects: .venv/.installed-dev ## measure every effect on the lab's model, with controls; writes benchmarks/results/ (half an hour)
	$(RUN) pip install -qq --disable-pip-version-check $(PIP_FLAGS) --group plots
	LANGSMITH_TRACING=false .venv/bin/python benchmarks/effects.py --json benchmarks/results/effects.json \
	    --plot benchmarks/results/effects.png $(BENCH_ARGS)

bench-rain: .venv/.installed-dev ## measure the RAIN search on a small local model (10 minutes or more)
	LANGSMITH_TRACING=false .venv/bin/python benchmarks/rain.py $(BENCH_ARGS)

bench-soak: .venv/.installed-dev ## mixed requests with random faults on one model, for 20 minutes
	LANGSMITH_TRACING=false .venv/bin/python benchmarks/soak.py --json benchmarks/results/soak.json $(BENCH_ARGS)

bench: .venv/.installed-dev ## run every benchmark; the last line of each is one JSON document
	@set -- benchmarks/bench_*.py; \
	if [ ! -e "$$1" ]; then echo "there are no benchmarks yet (benchmarks/bench_*.py)"; fi; \
	for script do \
	    if [ -e "$$script" ]; then echo "== $$script"; LANGSMITH_TRACING=false .venv/bin/python "$$script" $(BENCH_ARGS) || exit; fi; \
	done

clean: ## remove what make has made: the environment, builds, caches
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@if [ -e .venv/.made-by-make ]; then echo rm -rf .venv; rm -rf .venv; \
	elif [ -e .venv ]; then rm -f .venv/.installed-*; echo "left alone: .venv, which make has not made"; fi
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# --- The environment ----------------------------------------------------------------------------------------------
#
# A stamp says that an installation was finished; a newer pyproject.toml makes it stale. While something is being
# installed, .venv/.unfinished is there and no stamp is. Found at the start, it says that the last attempt was killed
# half-way: the environment is made anew, unless it is not make's own.

.venv/.installed-demo: pyproject.toml
	$(call install,-e ".[smol]")
	@touch $@

# Holds all that the demo needs as well.
.venv/.installed-dev: pyproject.toml
	$(call install,-e ".[all]" --group dev)
	@touch .venv/.installed-demo $@

define install
@$(check_python)
@$(create_environment)
@$(announce)
@$(pip_install)
endef

define check_python
command -v "$(PYTHON)" >/dev/null || { \
    echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or say where it is: make PYTHON=/path/to/python3.11" >&2; \
    exit 1; }; \
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
    echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1). Name another one: make PYTHON=python3.12" >&2; \
    exit 1; }; \
"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "'$(PYTHON)' comes without venv. On Debian and Ubuntu: apt install python3-venv" >&2; \
    exit 1; }
endef

define create_environment
if [ -e .venv/.unfinished ] && [ -e .venv/.made-by-make ]; then \
    echo "The last installation was interrupted; starting over with a new .venv."; \
    rm -rf .venv; \
fi; \
if [ ! -e .venv ]; then \
    echo "Creating .venv with $$("$(PYTHON)" --version)."; \
    mkdir .venv && touch .venv/.made-by-make .venv/.unfinished && "$(PYTHON)" -m venv .venv; \
else \
    .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
        echo "There is a .venv, but it has no Python 3.11 or newer with pip. Remove it, and run make again." >&2; \
        exit 1; }; \
    rm -f .venv/.installed-* && touch .venv/.unfinished; \
fi
endef

define announce
if ! .venv/bin/python -c 'import importlib.util as i, sys; sys.exit(i.find_spec("llama_cpp") is None)'; then \
    echo "llama.cpp is compiled once: about 8 minutes on 2 cores. Later installations take it from pip's cache."; \
    command -v "$${CXX:-c++}" >/dev/null || \
        echo "Note: there is no C++ compiler ('$${CXX:-c++}'), so this fails unless pip's cache has llama.cpp already." >&2; \
fi
endef

# pip says nothing but errors, so a line every 30 seconds shows that it is at work. Variables that make
# sets for its own children are hidden from it: a build inside pip would otherwise take them for a job server's.
define pip_install
parent=$$$$; \
( waited=0; while sleep 30 >/dev/null 2>&1 && kill -0 $$parent 2>/dev/null; do \
    waited=$$((waited + 30)); echo "  installing, $$waited seconds so far ..."; done ) & \
ticker=$$!; \
trap 'kill $$ticker 2>/dev/null' EXIT; \
trap 'exit 130' INT; trap 'exit 143' TERM HUP; \
pip() { env -u MAKEFLAGS -u MFLAGS $(RUN) pip install -qq --disable-pip-version-check $(PIP_FLAGS) "$$@"; }; \
pip --upgrade "pip>=25.1" && pip $(1); \
status=$$?; \
rm -f .venv/.unfinished; \
if [ $$status -eq 0 ]; then echo "Installed."; else echo "The installation failed; pip says why above." >&2; fi; \
exit $$status
endef

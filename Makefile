# `make check` is what CI runs. Another interpreter: make check PYTHON=.venv/bin/python
# test quick nightly docs picture bench check lint types c format

PYTHON = python
EXECUTABLE = $(shell $(PYTHON) -c "import sys; print(sys.executable)")
TYPED = build/typed
SIBLINGS = examples exporters firmware_stubs targets

.PHONY: check lint types c test quick nightly docs picture bench format

check: lint types c test

lint:
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m ruff check

# mypy sees the tree as it is installed, siblings inside edgeq; it must have seen every module.
types:
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/edgeq
	@ln -s $(abspath $(wildcard edgeq/*.py edgeq/py.typed) edgeq/fit edgeq/frontends edgeq/passes $(SIBLINGS)) $(TYPED)/edgeq
	@set -e; cd $(TYPED); \
	modules=$$(find -L edgeq/*.py edgeq/fit edgeq/frontends edgeq/passes $(SIBLINGS:%=edgeq/%) -maxdepth 1 -name '*.py' | sort); \
	$(EXECUTABLE) -m mypy --config-file $(CURDIR)/pyproject.toml $$modules | tee mypy.txt; \
	grep -q "no issues found in $$(echo $$modules | wc -w) source files" mypy.txt

c:
	$(MAKE) -C firmware_stubs check-format warnings cppcheck test test-asan PYTHON=$(EXECUTABLE)

test:
	$(PYTHON) -m pytest -n auto

# What needs no compiler and no emulator.
quick:
	$(PYTHON) -m pytest -n auto -m "not nightly and not tools"

nightly:
	$(PYTHON) -m pytest -n auto -m nightly
	$(MAKE) -C firmware_stubs nightly

# The pages that follow from the code, and the picture in the README.
docs:
	$(PYTHON) -m edgeq.docs docs

picture:
	$(PYTHON) bench/picture.py docs/export.svg

# The figures of docs/quantization.md, of the planner and of the profiler.
bench:
	$(PYTHON) bench/plan.py
	$(PYTHON) bench/profiling.py
	$(PYTHON) bench/ptq.py fashion-resnet8
	$(PYTHON) bench/ptq.py fashion-tiny

format:
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format
	$(MAKE) -C firmware_stubs format

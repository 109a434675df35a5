# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` make everything they need, from python3 (with venv and headers), g++ and make.

PYTHON ?= python3
VENV ?= .venv
WERROR ?= OFF
bin = $(VENV)/bin
pip = $(bin)/python -m pip --quiet --disable-pip-version-check
sources = $(shell find src native -type f -not -path '*/__pycache__/*') CMakeLists.txt pyproject.toml README.md LICENSE

.PHONY: demo test lint sanitize compare-tf bench bench-report clean

demo: $(VENV)/installed
	$(bin)/backstride demo --output demo-output $(ARGS) $(PHOTOS)

test: $(VENV)/installed
	$(bin)/python -m pytest $(ARGS)

lint: $(VENV)/tools
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/clang-format --dry-run --Werror $(shell find native -name '*.h' -o -name '*.cc')
	$(bin)/mypy

# Layers of published networks beside other libraries, and as shares of the FMA peak of the same run, results checked:
# make bench ARGS="--quick --only dcgan"; without --modes packed, eager and gradients. ARGS=--help lists the others.
bench: .venv-bench/installed .venv-tf/installed
	.venv-bench/bin/python benchmarks/compare.py --tensorflow-python .venv-tf/bin/python $(ARGS)

# The tables and pictures of benchmark.json again, without measuring.
bench-report: .venv-bench/installed
	.venv-bench/bin/python benchmarks/report.py $(ARGS)

.venv-bench/installed: requirements/bench.txt $(sources)
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/bench.txt .
	touch $@

# The tools at fixed versions, in one environment for the build, the tests and the checks.
$(VENV)/tools: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(pip) install -r requirements/dev.txt
	touch $@

$(VENV)/installed: $(VENV)/tools $(sources)
	$(pip) install --no-build-isolation --no-deps --config-settings=build-dir=build/$(VENV) \
		--config-settings=cmake.define.BACKSTRIDE_WERROR=$(WERROR) .
	$(pip) check
	touch $@

# The core under AddressSanitizer and UndefinedBehaviorSanitizer, in an environment of its own, with the tests that
# reach its corners. Python itself is not instrumented, hence the preloaded library and no leak check.
sanitize: .venv-sanitize/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 BACKSTRIDE_SANITIZED=1 \
	.venv-sanitize/bin/python -m pytest tests/test_kernels.py tests/test_nonfinite.py tests/test_arrays.py $(ARGS)

.venv-sanitize/installed: requirements/dev.txt $(sources)
	$(PYTHON) -m venv .venv-sanitize
	.venv-sanitize/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/dev.txt
	.venv-sanitize/bin/python -m pip --quiet --disable-pip-version-check install --no-build-isolation --no-deps \
		--config-settings=build-dir=build/.venv-sanitize --config-settings=cmake.define.BACKSTRIDE_SANITIZE=ON .
	touch $@

# Any number of random calls and half as many layer programs against live TensorFlow: make compare-tf SEED=1 COUNT=2000
SEED ?= 0
COUNT ?= 2000
compare-tf: .venv-tf/installed
	TF_ENABLE_ONEDNN_OPTS=0 TF_CPP_MIN_LOG_LEVEL=3 .venv-tf/bin/python tools/compare_tf.py --seed $(SEED) --count $(COUNT)
	.venv-tf/bin/python tools/compare_programs.py --seed $(SEED) --count $$(($(COUNT) / 2))

.venv-tf/installed: requirements/tf.txt $(sources)
	$(PYTHON) -m venv .venv-tf
	.venv-tf/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/tf.txt .
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-sanitize .venv-tf build demo-output

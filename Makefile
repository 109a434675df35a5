# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` make everything they need, from python3 (with venv and headers), g++ and make.

PYTHON ?= python3
VENV ?= .venv
WERROR ?= OFF
bin = $(VENV)/bin
pip = $(bin)/python -m pip --quiet --disable-pip-version-check
sources = $(shell find src native -type f -not -path '*/__pycache__/*') CMakeLists.txt pyproject.toml README.md LICENSE

.PHONY: demo test lint sanitize sanitize-threads test-neon compare-tf bench bench-choices bench-models bench-report \
	clean

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

# Whole PyTorch models before and after `accelerate`: make bench-models ARGS="--only dcgan"
bench-models: .venv-bench/installed
	.venv-bench/bin/python benchmarks/models.py $(ARGS)

# Whether the cost model takes the fastest algorithm of each layer: make bench-choices ARGS="--quick --modes eager"
bench-choices: $(VENV)/installed
	$(bin)/python benchmarks/choices.py $(ARGS)

.venv-bench/installed: requirements/bench.txt $(sources)
	$(PYTHON) -m venv .venv-bench
	BACKSTRIDE_JAX=1 .venv-bench/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/bench.txt .
	touch $@

# The tools at fixed versions, in one environment for the build, the tests and the checks.
$(VENV)/tools: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(pip) install -r requirements/dev.txt
	touch $@

$(VENV)/installed: $(VENV)/tools $(sources)
	$(pip) install --no-build-isolation --no-deps --config-settings=build-dir=build/$(VENV) \
		--config-settings=cmake.define.BACKSTRIDE_JAX=ON --config-settings=cmake.define.BACKSTRIDE_WERROR=$(WERROR) .
	$(pip) check
	touch $@

# The core under AddressSanitizer and UndefinedBehaviorSanitizer, in an environment of its own, with the tests that
# reach its corners. Python itself is not instrumented, hence the preloaded library and no leak check.
sanitize: .venv-sanitize/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	.venv-sanitize/bin/python -m pytest tests/test_kernels.py tests/test_nonfinite.py tests/test_arrays.py $(ARGS)

# The same under ThreadSanitizer, with the tests in which threads meet: of the pool, of plans, of streams, and a
# kernel of each algorithm, but not those that are timed or compute for a minute. It needs its shadow memory at fixed
# addresses, hence no random ones, and loses what pytest captured. Some four minutes, so .ci/run leaves it out.
THREAD_TESTS = tests/test_threads.py tests/test_plan.py::test_threads_share_a_plan \
	tests/test_stream.py::test_many_threads_have_streams_of_one_plan tests/test_stream.py::test_every_dtype \
	tests/test_workspace.py::test_parts_of_the_source_are_copied_without_a_difference \
	tests/test_kernels.py::test_kernel_is_exact_on_small_integers tests/test_kernels.py::test_default_choice_is_exact
sanitize-threads: .venv-sanitize-threads/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so)" TSAN_OPTIONS="halt_on_error=1 die_after_fork=0 suppressions=tools/thread_sanitizer.supp" \
	setarch $$(uname -m) --addr-no-randomize \
	.venv-sanitize-threads/bin/python -m pytest --capture=no $(THREAD_TESTS) \
	-k "not interrupt and not raises_nothing and not run_meanwhile" $(ARGS)

.venv-sanitize/installed: sanitizers = address,undefined
.venv-sanitize-threads/installed: sanitizers = thread
.venv-sanitize/installed .venv-sanitize-threads/installed: requirements/dev.txt $(sources)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/dev.txt
	$(@D)/bin/python -m pip --quiet --disable-pip-version-check install --no-build-isolation --no-deps \
		--config-settings=build-dir=build/$(@D) --config-settings=cmake.define.BACKSTRIDE_JAX=ON \
		--config-settings=cmake.define.BACKSTRIDE_SANITIZE=$(sanitizers) .
	touch $@

# The core cross-compiled for arm64, and its tests in Debian's Python for arm64 under user-mode emulation. It needs
# Debian's g++-aarch64-linux-gnu and qemu-user: make test-neon NEON_TESTS=tests/test_nn.py ARGS=-x
# The test left out takes an hour, and its cases are in the others of its file. PyTorch is left out, too: its wheels for
# arm64 ask for CUDA.
NEON_TESTS = tests/test_kernels.py tests/test_activations.py tests/test_nonfinite.py \
	--deselect tests/test_nonfinite.py::test_nonfinite_values_stay_with_their_terms
test-neon: .venv-neon/installed
	.venv-neon/bin/python -m pytest $(NEON_TESTS) $(ARGS)

.venv-neon/tools: requirements/dev.txt tools/arm64_python.sh $(VENV)/tools
	rm -rf .venv-neon
	tools/arm64_python.sh .venv-neon
	grep -v '^torch==' requirements/dev.txt > .venv-neon/requirements.txt
	$(pip) install --no-deps --requirement .venv-neon/requirements.txt --target $(neon_packages) --only-binary :all: \
		--python-version $$(.venv-neon/bin/python -c 'import sys; print(*sys.version_info[:2], sep=".")') \
		$(foreach libc,2_17 2_27 2_28 2_31 2_34,--platform manylinux_$(libc)_aarch64) --platform manylinux2014_aarch64
	touch $@

.venv-neon/installed: .venv-neon/tools $(sources)
	PATH="$(abspath $(bin)):$$PATH" cmake -S . -B build/.venv-neon -G Ninja \
		-D CMAKE_SYSTEM_NAME=Linux -D CMAKE_SYSTEM_PROCESSOR=aarch64 -D CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
		-D CMAKE_CXX_FLAGS="-idirafter $(abspath .venv-neon/sysroot/usr/include)" \
		-D BACKSTRIDE_JAX=ON -D BACKSTRIDE_WERROR=$(WERROR) \
		-D Python_EXECUTABLE=$(abspath .venv-neon/bin/python) -D Python_ROOT_DIR=$(abspath .venv-neon/sysroot/usr)
	$(bin)/cmake --build build/.venv-neon
	rm -rf $(neon_packages)/backstride
	cp -R src/backstride $(neon_packages)
	$(bin)/cmake --install build/.venv-neon --prefix $(neon_packages)
	touch $@

neon_packages = $$(.venv-neon/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Any number of random calls, half as many layer programs, and a tenth as many ports, against live TensorFlow:
# make compare-tf SEED=1 COUNT=2000
SEED ?= 0
COUNT ?= 2000
compare-tf: .venv-tf/installed
	TF_ENABLE_ONEDNN_OPTS=0 TF_CPP_MIN_LOG_LEVEL=3 .venv-tf/bin/python tools/compare_tf.py --seed $(SEED) --count $(COUNT)
	.venv-tf/bin/python tools/compare_programs.py --seed $(SEED) --count $$(($(COUNT) / 2))
	.venv-tf/bin/python tools/compare_convert.py --seed $(SEED) --count $$(($(COUNT) / 10))

.venv-tf/installed: requirements/tf.txt $(sources)
	$(PYTHON) -m venv .venv-tf
	.venv-tf/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/tf.txt .
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-neon .venv-sanitize .venv-sanitize-threads .venv-tf build demo-output

# Short targets that people, pre-commit and CI call; each check is defined here once.
# `make demo` and `make test` work from nothing on a machine with Python 3.11+, gcc and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STATION ?= station
REAL_DATA ?= ../shared/data
# Before the build, which compiles the CUDA kernels with it where the machine has none.
NVCC := 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["nvcc"])'
# Plans are built for real in tests, without a GPU; the full TensorRT's bindings are compared with what is used of them.
TENSORRT := tensorrt-rtx-cu13-libs==1.5.0.114 tensorrt-rtx-cu13-bindings==1.5.0.114 tensorrt-cu13-bindings==11.0.0.114
NATIVE := $(wildcard CMakeLists.txt kernels/CMakeLists.txt kernels/*.h kernels/*.cc kernels/*/*.h kernels/*/*.cc \
  kernels/*.cuh kernels/*/*.cuh kernels/*/*.cu)
EMULATOR := $(wildcard tests/kernels/emulator/*.h tests/kernels/emulator/*.cc)

.PHONY: demo run test page-pictures lint type fmt bench questions queries soak compare real solar-ways left-out left-out-dark labeling \
  chaos fuzz install-station uninstall-station booted gpu pycuda kernel-report bench-gpu golden wheel starter clean help
.DEFAULT_GOAL := help

help: ## what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}: wanted 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml $(NATIVE)
	$(PIP) scikit-build-core nanobind cmake ninja
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) torch==2.13.0 $$($(BIN)/python -c $(NVCC))
	$(PIP) --no-build-isolation --editable '.[train,photographs,mqtt,secs-gem,opcua,dev]'
	$(PIP) --no-deps $(TENSORRT)
	@touch $@

demo: $(VENV)/.installed ## a station, its daemon and API, and 30 simulated frames, for real
	$(BIN)/python -m appliance.demo --station $(STATION)

run: $(VENV)/.installed ## screen STATION until stopped
	$(BIN)/umbra run --station $(STATION)

test: $(VENV)/.dev ## all tests, two files at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

page-pictures: $(VENV)/.dev ## views of the station at URL, as docs/page.md shows them
	$(BIN)/python -m tests.page.pictures $(URL) docs/pictures

lint: $(VENV)/.dev ## ruff, clang-format, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cc %.cuh %.cu,$(NATIVE)) $(EMULATOR)
	$(BIN)/lint-imports

type: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

fmt: $(VENV)/.dev ## rewrite in the house style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter %.h %.cc %.cuh %.cu,$(NATIVE)) $(EMULATOR)

bench: $(VENV)/.dev ## all benchmarks; results go to benchmarks/results
	$(BIN)/python -m benchmarks.run

questions: $(VENV)/.dev ## what-if and ranking over a million stored frames; five minutes, 3 GB of disk
	$(BIN)/python -m benchmarks.line.bench_questions $(ARGS)

queries: $(VENV)/.dev ## what 200 queries a second cost a busy screener: four minutes
	$(BIN)/python -m benchmarks.line.bench_queries $(ARGS)

soak: $(VENV)/.dev ## 100,000 small frames through a running station: an hour; numbers and a picture go to the docs
	$(BIN)/python -m benchmarks.line.soak $(ARGS)

compare: $(VENV)/.dev ## optimisers, class schemes and sensors left out, trained small: two to three hours on two cores
	$(BIN)/python -m benchmarks.training.compare $(ARGS)

real: $(VENV)/.dev ## cross-validation on real pictures in REAL_DATA: four hours on two cores; both go on with ARGS=--resume
	$(BIN)/python -m benchmarks.real.crossval --data $(REAL_DATA) $(ARGS)

solar-ways: $(VENV)/.dev ## ways of learning from few solar cells, side by side: an hour a fold; goes on where it was stopped
	$(BIN)/python -m benchmarks.real.solar_ways --data $(REAL_DATA) $(ARGS)

left-out: $(VENV)/.dev ## classes that a UNet never saw, in REAL_DATA: an hour on two cores
	$(BIN)/python -m benchmarks.unseen.left_out --data $(REAL_DATA) $(ARGS)

left-out-dark: $(VENV)/.dev ## rings, bands and failures that a UNet never saw, on simulated dark frames: an hour on two cores
	$(BIN)/python -m benchmarks.unseen.dark $(ARGS)

labeling: $(VENV)/.dev ## the active labeling experiment on REAL_DATA: four hours on two cores; goes on where it was stopped
	$(BIN)/python -m benchmarks.active_labeling --data $(REAL_DATA) $(ARGS)

chaos: $(VENV)/.dev ## a daemon killed a thousand times while frames come in, half of them in the middle of a call: an hour
	$(BIN)/python -m tests.reliability.kills $(ARGS)

fuzz: $(VENV)/.dev ## 20,000 changed files of each format, and sidecars, through the decoders: ten minutes
	UMBRA_FUZZ_INPUTS=$(or $(INPUTS),20000) $(BIN)/python -m pytest -q tests/appliance/test_fuzz.py

gpu: $(VENV)/.dev ## tests that need a CUDA device; they skip loudly without one, and fail where one is here and cannot be tested
	if [ -e /dev/nvidiactl ] && ! $(BIN)/python -c 'import pycuda, cuda.bindings'; then $(MAKE) pycuda; fi
	$(BIN)/python -m pytest -m gpu
	if command -v compute-sanitizer; then for tool in memcheck racecheck initcheck synccheck; do \
	  compute-sanitizer --tool $$tool --error-exitcode 1 $(BIN)/python -m pytest -q tests/gpu/test_kernels.py -k "refused or reduction or small" \
	  || exit 1; done; fi

# pycuda is compiled from source: CUDA's headers come from PyPI, the driver to link with is an empty library.
PYCUDA := build/pycuda
pycuda: $(VENV)/.dev ## pycuda without a GPU or CUDA, and what uses it on an emulated driver: five minutes
	mkdir -p $(PYCUDA)
	$(PIP) nvidia-cuda-profiler-api==13.0.85 setuptools wheel 'cuda-bindings>=13.0,<14'
	echo 'int no_driver;' | $(CC) -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o $(PYCUDA)/libcuda.so
	echo 'CUDA_ENABLE_CURAND = False' > $(PYCUDA)/.aksetup-defaults.py
	CPATH=$$($(BIN)/python -c 'import nvidia; print(nvidia.__path__[0])')/cu13/include HOME=$(abspath $(PYCUDA)) \
	  LIBRARY_PATH=$(abspath $(PYCUDA)) LDFLAGS=-Wl,--no-as-needed $(PIP) --no-build-isolation pycuda==2026.1
	$(BIN)/python -m pytest -rs tests/gpu/test_pycuda.py

kernel-report: $(VENV)/.dev ## registers, shared memory and spills of the CUDA kernels, as nvcc reports them
	$(BIN)/python -m benchmarks.gpu.compiled

bench-gpu: $(VENV)/.dev ## kernels and inspectors on this machine's GPU; numbers and a picture go to benchmarks/results
	$(BIN)/python -m benchmarks.gpu.bench_gpu $(ARGS)

golden: $(VENV)/.dev ## rewrite the golden cases of the tests, after a look at why they changed
	$(BIN)/python -m tests.golden.make

starter: $(VENV)/.dev ## train and pack the shipped bundle anew: a night on two cores
	for role in regressor unseen classifier; do \
	  $(BIN)/umbra train $$role --simulate 90000 --out trained/starter/$$role --preset starter || exit 1; done
	$(BIN)/umbra bundle pack trained/starter --name starter --simulate 90000 --out engines/bundles/starter \
	  --note "preset starter, 90,000 simulated frames, seed 1000"
	$(BIN)/umbra simulate trained/sensors --paper-mix --part sensors --seed 4004 --megapixels 0.5
	$(BIN)/umbra bundle reference engines/bundles/starter --data trained/sensors --out trained/starter-tested \
	  --source "the 1,947 test frames of umbra simulate --paper-mix --part sensors --seed 4004 --megapixels 0.5"
	cp trained/starter-tested/bundle.toml engines/bundles/starter/

install-station: wheel ## this machine becomes a station: package in /opt/umbra, units of systemd, /var/lib/umbra; as root
	systemd/station install "$$(ls -t dist/umbra-*.whl | head -1)"

uninstall-station: ## undo that; /var/lib/umbra stays
	systemd/station uninstall

booted: ## the units under a real systemd, in a root of its own: installed, used, upgraded, taken away; as root, five minutes
	tests/systemd/booted

wheel: $(BIN)/python ## a wheel in dist/
	$(PIP) build
	$(BIN)/python -m build --wheel

clean: ## remove what make made
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

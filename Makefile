# The front door. `make help` lists what it opens; every target first installs what is missing (tools/setup).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
PRESET ?= dev
# Seconds: of `make test-soak` in all, of `make fuzz` for each target, of one test program.
BUDGET_S ?= 600
FUZZ_S ?= 60
TEST_TIMEOUT_S ?= 900
# Size of the databases that `make bench` restores and looks back in.
MIB ?= 256

# What was compiled in one checkout serves the others.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

SOURCES = $(shell git ls-files --cached --others --exclude-standard -- '*.h' '*.cc')
CLANG_FORMAT = build/tools/lint/bin/clang-format

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# --- what the targets stand on -----------------------------------------------------------------
build/setup/%.stamp: tools/setup
	@tools/setup $*
	@mkdir -p $(@D) && touch $@

# preset-NAME: configures the preset, which is cheap when nothing changed.
.PHONY: preset-%
preset-%: build/setup/base.stamp
	@cmake --preset $* > build/setup/$*.log 2>&1 || { cat build/setup/$*.log; exit 1; }

# --- use ---------------------------------------------------------------------------------------
.PHONY: build
build: preset-release ## the program, optimised: build/release/offprint
	@cmake --build --preset release -j $(JOBS) --target offprint

.PHONY: run
run: build ## a server with real data, followed live by a plain file (keeps serving on a terminal)
	@tools/demo

# --- check -------------------------------------------------------------------------------------
.PHONY: test
test: preset-$(PRESET) ## all tests; PRESET=asan, tsan or gcc runs them there
	@cmake --build --preset $(PRESET) -j $(JOBS)
	@tools/run_tests build/$(PRESET) --timeout $(TEST_TIMEOUT_S) -j $(JOBS)

.PHONY: test-interop
test-interop: preset-dev ## stock clients and programs against our server
	@cmake --build --preset dev -j $(JOBS) --target offprint ltx_tool s3_tool
	@tests/interop/run build/dev/offprint

.PHONY: test-soak
test-soak: preset-dev ## crash, property and load tests for BUDGET_S seconds, then the fuzz targets
	@cmake --build --preset dev -j $(JOBS)
	@tools/soak build/dev $(BUDGET_S)

.PHONY: fuzz
fuzz: preset-fuzz ## each fuzz target for FUZZ_S seconds, from its corpus
	@cmake --build --preset fuzz -j $(JOBS)
	@tools/fuzz build/fuzz $(FUZZ_S)

.PHONY: bench
bench: preset-release ## speed, beside its baselines of the same run
	@cmake --build --preset release -j $(JOBS) --target benchmarks
	@OFFPRINT_BENCH_MIB=$(MIB) tools/bench build/release

.PHONY: lint
lint: build/setup/lint.stamp preset-dev ## format, clang-tidy, the rules of the house
	@tools/lint build/dev

.PHONY: format
format: build/setup/lint.stamp ## clang-format over our sources
	@$(CLANG_FORMAT) -i $(SOURCES)

.PHONY: clean
clean: ## remove what was built and the demo's data; the fetched tools stay
	@rm -rf build/dev build/release build/asan build/tsan build/fuzz build/gcc build/lint build/setup build/soak demo

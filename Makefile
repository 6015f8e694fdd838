# The commands of CONTRIBUTING.md. Everything is idempotent; `make demo` and `make test` work on a fresh Debian 12.
BUILD ?= build/release

.PHONY: all setup build test test-aarch64 demo bench results format asan kernels fuzz trust check-layers clean
all: build

setup:
	@scripts/setup

build: setup
	@mkdir -p build && cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build --preset release

kernels: setup
	@cmake --preset kernels >/dev/null && cmake --build --preset kernels && build/kernels/fovea_core_test --gtest_brief=1 && build/kernels/fovea_kernels_test --gtest_brief=1

test: build
	@scripts/check_layers
	@scripts/check_fuzz_targets
	@scripts/test_sanitized $(BUILD)
	@scripts/test $(BUILD)

# A minute a target; `scripts/fuzz --runs 10000000` for the count of a release.
fuzz: setup
	@cmake --preset fuzz >/dev/null && cmake --build --preset fuzz && scripts/fuzz --seconds 60

# Hours; `scripts/trust build/release --quick` for minutes. Writes docs/results/trust.md.
trust: build
	@cmake --preset fuzz >/dev/null && cmake --build --preset fuzz && scripts/trust $(BUILD)

test-aarch64:
	@scripts/test_aarch64

demo: setup
	@mkdir -p build && cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
	@cmake --build --preset release --target fovea
	@scripts/demo $(BUILD)

asan: setup
	@cmake --preset asan >/dev/null && cmake --build --preset asan && scripts/test build/asan

bench: build
	@scripts/results $(BUILD) bench

results: build
	@scripts/results $(BUILD)

format:
	@git ls-files 'fovea/*.h' 'fovea/*.cpp' 'tests/*.cpp' 'tests/*.h' 'examples/*.cpp' 'benchmarks/*.cpp' | xargs clang-format -i

clean:
	@rm -rf build

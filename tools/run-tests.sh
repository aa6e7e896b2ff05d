#!/bin/sh
# Runs the tests that the arguments choose (`tools/run-tests.sh -p tests --test kubelet`), and ends with a line `N passed, N failed`.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "the tests attach loop devices and mount filesystems: run them as root" >&2
    exit 1
fi

# Two tests at once: more would only wait for each other's disks.
export RUST_TEST_THREADS=2

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Whatever fails is noted, and the rest runs all the same.
run() {
    cargo test --locked --no-fail-fast "$@" 2>&1 || echo "cargo test $*: ended with $?" >>"$scratch/failed"
}

run "$@" | tee "$scratch/output"

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$scratch/output"
if [ -e "$scratch/failed" ]; then
    cat "$scratch/failed"
    exit 1
fi

#!/bin/sh
# Runs every test of the workspace, or those that the arguments choose (`tools/run-tests.sh -p tests --test kubelet`),
# and ends with a line `N passed, N failed`.
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

# `--test NAME` for each integration test whose name the pattern matches, or with -v does not match; without the one that needs a
# feature of its own.
integration_tests() {
    cargo metadata --locked --no-deps --format-version 1 |
        grep -o '"kind":\["test"\],"crate_types":\["bin"\],"name":"[^"]*"' |
        sed 's/.*:"\(.*\)"/\1/' | sort -u | grep -vx node_faults | grep "$@" | sed 's/^/--test /'
}

everything() {
    # Built once for all of them: what follows finds it.
    run --workspace --no-run
    # Those on the two-node cluster wait for it most of the time: more of them at once, and the others run beside them.
    RUST_TEST_THREADS=4 run --workspace $(integration_tests '^kubernetes') >"$scratch/cluster" &
    run --workspace --lib --bins $(integration_tests -v '^kubernetes')
    run --workspace --doc
    # The Node service killed and failing at each of its steps: with a feature that no shipped build has.
    run -p csi-node --features fault-injection --test node_faults
    wait
    cat "$scratch/cluster"
}

if [ $# = 0 ]; then everything; else run "$@"; fi | tee "$scratch/output"

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$scratch/output"
if [ -e "$scratch/failed" ]; then
    cat "$scratch/failed"
    exit 1
fi

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
run() {
    cargo test --locked --no-fail-fast "$@" -- --test-threads=2 2>&1 || echo "cargo ended with $?" >"$output.status"
}

everything() {
    run --workspace
    # The Node service killed and failing at each of its steps: with a feature that no shipped build has.
    run -p csi-node --features fault-injection --test node_faults
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
if [ $# = 0 ]; then everything; else run "$@"; fi | tee "$output"
if [ -e "$output.status" ]; then
    cat "$output.status"
    rm -f "$output.status"
    status=1
fi

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$output"
exit $status

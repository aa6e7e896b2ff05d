#!/bin/sh
# Runs every test of the workspace, or those that the arguments choose (`tools/run-tests.sh -p tests --test kubelet`),
# and ends with a line `N passed, N failed`.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "the tests attach loop devices and mount filesystems: run them as root" >&2
    exit 1
fi
if [ $# = 0 ]; then
    set -- --workspace
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
# Two tests at once: more would only wait for each other's disks.
status=0
{ cargo test --locked --no-fail-fast "$@" -- --test-threads=2 2>&1 || echo "cargo ended with $?" >"$output.status"; } |
    tee "$output"
if [ -e "$output.status" ]; then
    cat "$output.status"
    rm -f "$output.status"
    status=1
fi

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$output"
exit $status

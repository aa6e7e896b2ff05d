#!/bin/sh
# Everything: what `make test` does. Ends with the count of all tests, and with an error when one of them or a build failed.
#
# Four lanes, because two processors are enough for one that computes and for others that wait for disks and for a cluster:
#
#   tools     builds the Kubernetes of the tests, at the lowest priority: whoever needs it begins last
#   node      builds the programs and the tests, then runs the tests of one machine
#   api       when both are built: tests with an API server of their own, and of the manifests
#   cluster   beside these: tests on the two-node cluster, one after the other, because nothing else may touch it; then the fuzzing
#
# What the lane `node` prints is seen at once, the others' output when they have ended.
#
# All but `node` have their own mounts: a node of a cluster begins with a copy of the mounts that it finds, and would keep in use what a
# test of another lane unmounts just then.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "the tests attach loop devices and mount filesystems: run them as root" >&2
    exit 1
fi

# Two tests of a program at once: more would only wait for each other's disks.
export RUST_TEST_THREADS=2
# Nothing here is built twice.
export CARGO_INCREMENTAL=0

if [ "${1-}" = --other-lanes ]; then
    scratch=$2
else
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
fi

# The names of the integration tests that match the pattern, or with -v do not match it, as arguments of cargo. `node_faults` needs a
# feature of its own.
tests() {
    cargo metadata --locked --no-deps --format-version 1 |
        grep -o '"kind":\["test"\],"crate_types":\["bin"\],"name":"[^"]*"' |
        sed 's/.*:"\(.*\)"/\1/' | sort -u | grep -vx node_faults | grep -Ex "$@" | sed 's/^/--test /'
}
cluster='kubernetes.*'
api='agent|binary|keepers|snapshots|volumes|cluster|cutting|differential|cluster_itself|manifests.*'

# Whatever fails is noted, and the rest runs all the same. `--workspace` always, so that no call builds with other features.
run() {
    cargo test --locked --no-fail-fast "$@" 2>&1 || echo "cargo test $*: ended with $?" >>"$scratch/failed"
}

said() {
    date "+%T $*"
}

tools_lane() {
    nice -n 19 tools/build-cluster-tools.sh || echo "the programs of the cluster were not built" >>"$scratch/failed"
}

build() {
    tools/build-test-binaries.sh && cargo test --locked --workspace --no-run && make --no-print-directory image
}

# shellcheck disable=SC2046 # lists of arguments
node_lane() {
    run --workspace --lib --bins $(tests -v "$cluster|$api")
    run --workspace --doc
    # The Node service killed and failing at each of its steps: with a feature that no shipped build has.
    run -p csi-node --features fault-injection --test node_faults
    said "the tests of one machine have run"
}

# shellcheck disable=SC2046
api_lane() {
    run --workspace $(tests "$api")
    said "the tests with an API server have run"
}

# shellcheck disable=SC2046
cluster_lane() {
    # These wait for the cluster most of the time: more of them at once.
    RUST_TEST_THREADS=4 run --workspace $(tests "$cluster")
    said "the tests on the cluster have run"
    tools/fuzz.sh 60 || echo "tools/fuzz.sh: ended with $?" >>"$scratch/failed"
    said "the fuzzing has ended"
}

# Goes on with the lanes that need the cluster's programs when the other lane says that the rest is built.
other_lanes() {
    tools_lane >"$scratch/tools" 2>&1
    read -r built <"$scratch/built"
    [ "$built" = yes ] || exit
    cluster_lane >"$scratch/cluster" 2>&1 &
    api_lane >"$scratch/api" 2>&1
    wait
}

if [ "${1-}" = --other-lanes ]; then
    other_lanes
    exit
fi

tools/install-test-tools.sh
mkfifo "$scratch/built"
touch "$scratch/tools" "$scratch/node" "$scratch/api" "$scratch/cluster"
unshare --mount --propagation private tools/test-everything.sh --other-lanes "$scratch" &
others=$!
said "building; the programs of the cluster beside it"
if build 2>&1; then built=yes; else built=no; fi
said "built: $built"
echo "$built" >"$scratch/built" &
if [ "$built" = yes ]; then node_lane | tee "$scratch/node"; else echo "the build failed" >>"$scratch/failed"; fi
wait "$others"
cat "$scratch/tools" "$scratch/api" "$scratch/cluster"

cat "$scratch/node" "$scratch/api" "$scratch/cluster" |
    awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }'
if [ -e "$scratch/failed" ]; then
    cat "$scratch/failed"
    exit 1
fi

#!/bin/sh
# Fuzzes every reader of what others wrote: `tools/fuzz.sh SECONDS [TARGET...]`, each target for SECONDS, two at once.
# Coverage-guided by libFuzzer with the stable compiler: its instrumentation is a plain option of rustc; only sanitizers
# would need a nightly one, and none of the code fuzzed here is unsafe. What breaks a target is kept and named: move it to
# fuzz/findings/TARGET/, and every `cargo test -p fuzz` replays it from then on.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:?"give the seconds for each target"}
shift
targets=${*:-image decode record mountinfo}

tools/need-packages.sh qemu-img:qemu-utils g++:g++
target=${CARGO_TARGET_DIR:-target}
corpus=$target/fuzz-corpus
triple=$(rustc -vV | sed -n 's/^host: //p')

cargo run --locked -q -p fuzz --bin seeds "$corpus/seeds"
bins=
for name in $targets; do bins="$bins --bin fuzz-$name"; done
# With --target, so that build scripts are not instrumented. In a folder of its own, beside the builds of everything else.
# shellcheck disable=SC2086
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing" \
    cargo build --locked -q --release --target "$triple" --target-dir "$target/fuzz" -p fuzz --features libfuzzer $bins

fuzz() {
    mkdir -p "$corpus/$1" "$corpus/broken/$1"
    if "$target/fuzz/$triple/release/fuzz-$1" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=256 -max_len=65536 \
        -print_final_stats=1 -artifact_prefix="$corpus/broken/$1/" "$corpus/$1" "$corpus/seeds/$1" \
        >"$corpus/$1.log" 2>&1; then
        echo "fuzz $1: nothing found, $(sed -n 's/^stat::number_of_executed_units: *//p' "$corpus/$1.log") runs"
    else
        tail -n 30 "$corpus/$1.log"
        echo "fuzz $1: FOUND SOMETHING: see $corpus/broken/$1/ and move it to fuzz/findings/$1/"
        return 1
    fi
}

status=0
running=
for name in $targets; do
    fuzz "$name" &
    if [ -z "$running" ]; then
        running=$!
    else
        wait "$running" || status=1
        wait $! || status=1
        running=
    fi
done
if [ -n "$running" ]; then wait "$running" || status=1; fi
exit $status

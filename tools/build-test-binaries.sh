#!/bin/sh
# Builds vdctl twice: as it is shipped, and with fault injection into target/fault, where `cargo test` does not
# overwrite it with a build without the feature.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

cargo build --locked --release -p vdctl
cargo build --locked -p vdctl --features fault-injection
mkdir -p "$target/fault"
cp "$target/debug/vdctl" "$target/fault/vdctl"

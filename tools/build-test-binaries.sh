#!/bin/sh
# Builds the programs as they are shipped, and vdctl a second time with fault injection into target/fault, where
# `cargo test` does not overwrite it with a build without the feature.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

cargo build --locked --release -p vdctl -p csi-node -p csi-controller -p snapshotter --bins
cargo build --locked -p vdctl --features fault-injection
mkdir -p "$target/fault"
cp "$target/debug/vdctl" "$target/fault/vdctl"

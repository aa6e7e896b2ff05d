#!/bin/sh
# Builds the container image of an earlier commit (VD_UPGRADE_FROM, by default the one before this) as vd-csi:previous, and the
# manifest that goes with it, into .cache/previous: what the test of upgrades takes with VD_UPGRADE=previous.
set -eu
cd "$(dirname "$0")/.."
out=$PWD/.cache/previous
commit=$(git rev-parse --verify "${VD_UPGRADE_FROM:-HEAD~1}^{commit}")

if [ "$(cat "$out/commit" 2>/dev/null)" = "$commit" ]; then
    exit
fi
echo "building $(git log -1 --format='%h (%s)' "$commit") into .cache/previous (minutes the first time)"
rm -rf "$out/source" "$out/commit"
mkdir -p "$out/source"
# Newer than what was built before from another commit: cargo goes by that.
git archive "$commit" | tar -x -m -C "$out/source"
# A target folder of its own: the programs have the same names as those that are tested.
binaries=$(sed -n 's/^binary \(.*\)/-p \1 --bin \1/p' "$out/source/deploy/image/contents")
# shellcheck disable=SC2086 # several words
(cd "$out/source" && cargo build --locked --release --target-dir "$out/target" $binaries)
cargo run --locked -q -p tests --bin cluster -- image "$out/target/release" --tag previous --archive "$out/vd-csi.tar"
sed 's/image: vd-csi:.*/image: vd-csi:previous/' "$out/source/deploy/vd-csi.yaml" >"$out/vd-csi.yaml"
echo "$commit" >"$out/commit"

#!/bin/sh
# Builds the check of KubeVirt's and CDI's YAML by their own Go types into .cache/bin, unless it was built from the same source.
set -eu
cd "$(dirname "$0")/.."
folder=tests/src/manifests/kubevirt
stamp=.cache/bin/kubevirt-check.source

digest=$(cat "$folder"/main.go "$folder"/go.mod "$folder"/go.sum | sha256sum)
if [ -x .cache/bin/kubevirt-check ] && [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then
    exit 0
fi
if ! command -v go >/dev/null 2>&1; then
    echo "the check of KubeVirt's YAML is built with Go, and there is no Go here: install Go 1.26 or later" >&2
    exit 1
fi
echo "building kubevirt-check (minutes the first time) into .cache/bin"
mkdir -p .cache/bin
CGO_ENABLED=0 go build -C "$folder" -mod=readonly -trimpath -ldflags "-s -w" -o "$PWD/.cache/bin/kubevirt-check" .
echo "$digest" >"$stamp"

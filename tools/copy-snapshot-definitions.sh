#!/bin/sh
# Copies the definitions of VolumeSnapshot and its kin into the chart, from the module that the test cluster's programs are built
# from: what is installed is what was tested.
set -eu
cd "$(dirname "$0")/.."
target=deploy/chart/vd-csi/files/snapshot-crds
module=github.com/kubernetes-csi/external-snapshotter/client/v8

if ! command -v go >/dev/null 2>&1; then
    echo "the definitions are taken from a Go module, and there is no Go here: install Go 1.26 or later" >&2
    exit 1
fi
(cd tests/cluster/kubernetes && go mod download $module)
found=$(cd tests/cluster/kubernetes && go list -m -f '{{.Dir}} {{.Version}}' $module)
folder=${found% *}/config/crd
version=${found##* }
mkdir -p "$target"
rm -f "$target"/*.yaml
for file in "$folder"/snapshot.storage.k8s.io_*.yaml; do
    name=${file##*_}
    {
        echo "# $module $version (the Kubernetes authors, Apache-2.0), unchanged; \`make manifests\` brings it."
        cat "$file"
    } >"$target/$name"
done

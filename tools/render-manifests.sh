#!/bin/sh
# Renders deploy/vd-csi.yaml from the Helm chart with its default values.
#
#   tools/render-manifests.sh [FILE]    (default deploy/vd-csi.yaml; - is standard output)
#
# helm is the one of the test cluster's tools where it was built, else it is installed into .cache/bin.
set -eu
cd "$(dirname "$0")/.."
version=v3.22.0
target=${1:-deploy/vd-csi.yaml}

helm=.cache/cluster/bin/helm
if [ ! -x "$helm" ]; then
    helm=.cache/bin/helm
fi
if [ ! -x "$helm" ]; then
    if ! command -v go >/dev/null 2>&1; then
        echo "helm is built with Go, and there is no Go here: install Go 1.26 or later" >&2
        exit 1
    fi
    echo "building helm $version into .cache/bin" >&2
    mkdir -p .cache/bin
    GOBIN="$PWD/.cache/bin" CGO_ENABLED=0 go install "helm.sh/helm/v3/cmd/helm@$version"
fi

rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT
{
    echo "# Rendered from deploy/chart/vd-csi by \`make manifests\`; change the chart instead."
    # A newer Kubernetes than the oldest that is served must not change what is rendered.
    "$helm" template vd-csi deploy/chart/vd-csi --namespace vd-csi --set namespace.create=true --kube-version 1.32.0
} >"$rendered"
if [ "$target" = - ]; then
    cat "$rendered"
else
    cp "$rendered" "$target"
    chmod 644 "$target"
fi

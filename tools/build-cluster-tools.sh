#!/bin/sh
# Builds the Kubernetes of the tests into .cache/cluster/bin: the control plane, kubelet and the CSI sidecars, containerd,
# and helm. The versions are those of tests/cluster/*/go.mod. What is there from the same inputs is not built again.
set -eu
cd "$(dirname "$0")/.."
project=$PWD
out=$project/.cache/cluster
kubernetes=1.36.3
containerd=2.2.0
helm=v3.22.0

# The plugins of the pod network have no command in PATH: `bridge` is also a command of iproute2.
cni=
[ -x /usr/lib/cni/bridge ] || cni=cni-bridge:containernetworking-plugins
# shellcheck disable=SC2086 # empty or one word
tools/need-packages.sh runc:runc busybox:busybox-static tini:tini openssl:openssl ip:iproute2 nsenter:util-linux \
    losetup:mount mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs mkfs.btrfs:btrfs-progs $cni

if ! command -v go >/dev/null 2>&1; then
    echo "the cluster's programs are built with Go, and there is no Go here: install Go 1.26 or later" >&2
    exit 1
fi
mkdir -p "$out/bin" "$out/stamps"

# group NAME FILE...: runs build_NAME unless it has already run with this compiler, this script and these files.
group() {
    name=$1
    shift
    digest=$( (go env GOVERSION GOARCH && cat "$project/tools/build-cluster-tools.sh" "$@") | sha256sum)
    if [ "$(cat "$out/stamps/$name" 2>/dev/null)" = "$digest" ]; then
        return
    fi
    started=$(date +%s)
    echo "building $name (minutes the first time) into .cache/cluster/bin"
    "build_$name"
    echo "$digest" >"$out/stamps/$name"
    echo "built $name in $(($(date +%s) - started)) s"
}

# build FOLDER FLAGS OUTPUT PACKAGE...: the packages of one Go module, pinned by its go.sum.
build() {
    folder=$1 tags=$2 flags=$3 target=$4
    shift 4
    (cd "$project/$folder" && CGO_ENABLED=0 go build -p 2 -mod=readonly -trimpath -tags "$tags" \
        -ldflags "-s -w $flags" -o "$target" "$@")
}

build_kubernetes() {
    version=k8s.io/component-base/version
    snapshotter=github.com/kubernetes-csi/external-snapshotter
    build tests/cluster/kubernetes "" \
        "-X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=36 -X $version.gitTreeState=clean" \
        "$out/bin/" \
        k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager \
        k8s.io/kubernetes/cmd/kube-scheduler k8s.io/kubernetes/cmd/kubelet k8s.io/kubernetes/cmd/kubectl \
        github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner \
        github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer \
        $snapshotter/v8/cmd/csi-snapshotter $snapshotter/v8/cmd/snapshot-controller
    build tests/cluster/kubernetes "" "" "$out/bin/etcd" go.etcd.io/etcd/server/v3
    # The definitions of VolumeSnapshot and its kin are part of the client's module.
    crds=$(cd tests/cluster/kubernetes && go list -m -f '{{.Dir}}' $snapshotter/client/v8)/config/crd
    rm -rf "$out/crd" && mkdir -p "$out/crd"
    install -m 644 "$crds"/snapshot.storage.k8s.io_*.yaml "$out/crd/"
}

build_containerd() {
    commands=github.com/containerd/containerd/v2/cmd
    build tests/cluster/containerd no_btrfs,no_devmapper,no_zfs,no_aufs \
        "-X github.com/containerd/containerd/v2/version.Version=v$containerd" "$out/bin/" \
        $commands/containerd $commands/containerd-shim-runc-v2 $commands/ctr
}

build_helm() {
    GOBIN="$out/bin" CGO_ENABLED=0 go install -p 2 -trimpath -ldflags "-s -w" "helm.sh/helm/v3/cmd/helm@$helm"
}

group kubernetes tests/cluster/kubernetes/go.mod tests/cluster/kubernetes/go.sum
group containerd tests/cluster/containerd/go.mod tests/cluster/containerd/go.sum
group helm

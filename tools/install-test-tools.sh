#!/bin/sh
# Installs what the tests need and this machine lacks: Debian packages, and csi-sanity into .cache/bin.
set -eu
cd "$(dirname "$0")/.."

tools/need-packages.sh mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs xfs_io:xfsprogs mkfs.btrfs:btrfs-progs \
    qemu-img:qemu-utils losetup:mount lsblk:util-linux strace:strace

version=v5.6.0
if [ ! -x .cache/bin/csi-sanity ] || [ "$(cat .cache/bin/csi-sanity.version 2>/dev/null)" != "$version" ]; then
    if ! command -v go >/dev/null 2>&1; then
        echo "csi-sanity is built with Go, and there is no Go here: install Go 1.25 or later" >&2
        exit 1
    fi
    echo "building csi-sanity $version into .cache/bin"
    mkdir -p .cache/bin
    GOBIN="$PWD/.cache/bin" go install "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@$version"
    echo "$version" >.cache/bin/csi-sanity.version
fi

tools/build-kubevirt-check.sh

# The project's entry points. Each installs what it lacks and says so.
.PHONY: demo bench test soak fuzz lint image cluster-up cluster-down demo-kubernetes bench-kubernetes bench-snapshots cluster-tools manifests test-tools test-binaries

# The main job on one machine, shown on a real VM. Needs root. POOL=dir: in a pool folder of yours.
demo:
	tools/need-packages.sh qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils extlinux:extlinux \
	    sfdisk:fdisk cpio:cpio mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs losetup:mount
	tests/guest/build.sh .cache/guest
	cargo build --locked --release -p vdctl -p tests --bin vdctl --bin demo
	POOL="$(POOL)" "$${CARGO_TARGET_DIR:-target}/release/demo"

# Speed and size beside what people use today, as Markdown. Needs root. QUICK=1: smaller disks, fewer rounds.
bench:
	tools/need-packages.sh fio:fio qemu-img:qemu-utils mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs losetup:mount
	cargo build --locked --release -p vdctl -p tests --bin vdctl --bin bench
	"$${CARGO_TARGET_DIR:-target}/release/bench" $(if $(QUICK),--quick)

# Everything: unit tests, the real server on real filesystems, and a real Kubernetes. Needs root.
test:
	tools/test-everything.sh

# 100,000 mutated images, every combination of qemu-img's options and each fuzzing target for MINUTES (30); random operations
# under random crashes, and copies that race with a writer, for as long; then a real Kubernetes in which everything is killed for CHAOS_MINUTES (60), what takes long
# there, and the upgrade from the previous commit. Prints the seed of each run; VD_SOAK_SEED and VD_SEED repeat one.
soak: test-tools test-binaries cluster-tools image
	VD_SOAK_MINUTES=$(or $(MINUTES),30) tools/run-tests.sh -p fuzz
	tools/fuzz.sh $$((60 * $(or $(MINUTES),30)))
	VD_SOAK_MINUTES=$(or $(MINUTES),30) tools/run-tests.sh -p tests --test soak --test racing_copies
	tools/build-previous-image.sh
	VD_CHAOS_MINUTES=$(or $(CHAOS_MINUTES),60) VD_UPGRADE=previous \
	    tools/run-tests.sh -p tests --test kubernetes_faults -- --include-ignored
	VD_CUTTING=all tools/run-tests.sh -p snapshotter --test cutting -- --include-ignored

# Every reader of what others wrote, under libFuzzer: each for FUZZ_SECONDS (60), two at once.
fuzz:
	tools/fuzz.sh $(or $(FUZZ_SECONDS),60)

# The container image vd-csi:VERSION as an archive in .cache/image/vd-csi.tar, without a container engine.
image:
	tools/need-packages.sh mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs
	cargo build --locked --release $$(sed -n 's/^binary \(.*\)/-p \1 --bin \1/p' deploy/image/contents)
	cargo run --locked -q -p tests --bin cluster -- image "$${CARGO_TARGET_DIR:-target}/release"

# A real Kubernetes of two nodes on this machine. Needs root. What it prints makes kubectl find it.
cluster-up: cluster-tools
	cargo run --locked -q -p tests --bin cluster -- up

# Ends all of it and removes what it made.
cluster-down:
	cargo run --locked -q -p tests --bin cluster -- down

# The driver on that Kubernetes, as shipped, and the life of two volumes. Without a running cluster it starts one of its own.
demo-kubernetes: cluster-tools image
	cargo build --locked -q -p tests --bin cluster --bin demo-kubernetes
	"$${CARGO_TARGET_DIR:-target}/debug/demo-kubernetes"

# How long claims and snapshots take there, and what the driver needs, as Markdown.
bench-kubernetes: cluster-tools image
	cargo build --locked -q -p tests --bin cluster --bin bench-kubernetes
	"$${CARGO_TARGET_DIR:-target}/debug/bench-kubernetes"

# Our snapshot controller beside the two upstream programs, as Markdown. Needs root. QUICK=1: fewer snapshots.
bench-snapshots: cluster-tools
	cargo build --locked --release -p vdctl -p snapshotter -p tests --bin vdctl --bin snapshotter --bin bench-snapshots
	"$${CARGO_TARGET_DIR:-target}/release/bench-snapshots" $(if $(QUICK),--quick)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test-tools:
	tools/install-test-tools.sh

# The programs of the Kubernetes of the tests, into .cache/cluster/bin.
cluster-tools:
	tools/build-cluster-tools.sh

# The programs as they are shipped, and vdctl with the feature fault-injection for the crash tests.
test-binaries:
	tools/build-test-binaries.sh

# The custom resources of the chart from the code, the definitions of snapshots from their module, and deploy/vd-csi.yaml from the
# chart.
manifests:
	UPDATE=1 cargo test --locked -q -p api --test generated
	tools/copy-snapshot-definitions.sh
	tools/render-manifests.sh

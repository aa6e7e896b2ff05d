# The project's entry points. Each installs what it lacks and says so.
.PHONY: demo bench test soak lint test-tools test-binaries

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

# Everything: unit tests, and the real server on real filesystems. Needs root (loop devices, mounts).
test: test-tools test-binaries
	tools/run-tests.sh

# Random operations under random crashes, for MINUTES (30). Prints the seed of each run; VD_SOAK_SEED repeats one.
soak: test-tools test-binaries
	VD_SOAK_MINUTES=$(or $(MINUTES),30) tools/run-tests.sh -p tests --test soak

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test-tools:
	tools/install-test-tools.sh

# vdctl as it is shipped, and with the feature fault-injection for the crash tests.
test-binaries:
	tools/build-test-binaries.sh

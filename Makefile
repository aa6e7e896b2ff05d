# The project's entry points. Each installs what it lacks and says so.
.PHONY: test lint test-tools test-binaries

# Everything: unit tests, and the real server on real filesystems. Needs root (loop devices, mounts).
test: test-tools test-binaries
	tools/run-tests.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test-tools:
	tools/install-test-tools.sh

# vdctl as it is shipped, and with the feature fault-injection for the crash tests.
test-binaries:
	tools/build-test-binaries.sh

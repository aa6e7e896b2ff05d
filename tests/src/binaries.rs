//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The project's folder.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the project's folder")
        .to_owned()
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| project().join("target"), PathBuf::from)
}

/// `vdctl` as it is shipped: the release build. `VD_VDCTL` names another one.
#[must_use]
pub fn shipped() -> PathBuf {
    find(
        "VD_VDCTL",
        target().join("release/vdctl"),
        "make test-binaries",
    )
}

/// `vdctl` with the feature `fault-injection`. `VD_VDCTL_FAULT` names another one.
///
/// It lies in a folder of its own, because `cargo test` overwrites `target/debug/vdctl` with a build without the feature.
#[must_use]
pub fn with_faults() -> PathBuf {
    find(
        "VD_VDCTL_FAULT",
        target().join("fault/vdctl"),
        "make test-binaries",
    )
}

/// The conformance test of the CSI project. `CSI_SANITY` names another one.
#[must_use]
pub fn csi_sanity() -> PathBuf {
    find(
        "CSI_SANITY",
        project().join(".cache/bin/csi-sanity"),
        "make test-tools",
    )
}

fn find(variable: &str, usual: PathBuf, maker: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or(usual, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: run `{maker}` first",
        path.display()
    );
    path
}

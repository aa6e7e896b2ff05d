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

/// One of the programs that run in a cluster, as it is shipped: the release build. `VD_PROGRAMS` names another folder.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("VD_PROGRAMS").map_or_else(|| target().join("release"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "there is no {}: run `make test-binaries` first",
        path.display()
    );
    path
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

/// The check of KubeVirt's and CDI's YAML by those projects' own Go types. `KUBEVIRT_CHECK` names another one.
#[must_use]
pub fn kubevirt_check() -> PathBuf {
    find(
        "KUBEVIRT_CHECK",
        project().join(".cache/bin/kubevirt-check"),
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

//! The definitions of `VolumeSnapshot` and its kin, from the module that the sidecars are built from.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::kubectl;
use super::site::Site;

/// Installs the definitions and waits until the API server serves them.
pub(super) fn install_definitions(site: &Site) -> Result<()> {
    let folder = site
        .programs()
        .parent()
        .context("the folder of the programs has none above it")?
        .join("crd");
    // kubectl does not follow a link to a folder.
    let folder = folder
        .canonicalize()
        .with_context(|| folder.display().to_string())?;
    let files = std::fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    let folder = folder.to_str().context("the folder's name is not text")?;
    let _quiet = kubectl::run(site, &["apply", "--server-side", "-f", folder])?;
    let established = [
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        folder,
    ];
    let _quiet = kubectl::run(site, &established)?;
    Ok(())
}

//! What cluster to start.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::binaries;
use crate::scratch_fs::{FsKind, GIB};

/// The disk behind a node's `/var/vd`: a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The filesystem on it.
    pub kind: FsKind,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            kind: FsKind::Xfs,
            bytes: 20 * GIB,
        }
    }
}

/// How to start a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Everything of the cluster is in this folder, which is made at the start and gone after the stop.
    pub folder: PathBuf,
    /// One node for each.
    pub disks: Vec<Disk>,
    /// Whether to install the definitions of `VolumeSnapshot`.
    pub snapshots: bool,
    /// Whether to run the upstream snapshot-controller beside the control plane, if there are those definitions.
    pub snapshot_controller: bool,
    /// More arguments of kube-apiserver.
    pub apiserver: Vec<String>,
    /// More arguments of kube-controller-manager.
    pub controller_manager: Vec<String>,
}

impl Options {
    /// Two nodes on XFS, with snapshots and the upstream snapshot-controller, in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            disks: vec![Disk::default(); 2],
            snapshots: true,
            snapshot_controller: true,
            apiserver: Vec::new(),
            controller_manager: Vec::new(),
        }
    }

    /// The folder of `make cluster-up`.
    #[must_use]
    pub fn usual_folder() -> PathBuf {
        binaries::project().join(".cache/cluster/run")
    }

    pub(super) fn to_json(&self, index: u8) -> Value {
        let disks: Vec<Value> = self
            .disks
            .iter()
            .map(|disk| json!({"kind": disk.kind.name(), "bytes": disk.bytes}))
            .collect();
        json!({
            "index": index,
            "disks": disks,
            "snapshots": self.snapshots,
            "snapshotController": self.snapshot_controller,
            "apiserver": self.apiserver,
            "controllerManager": self.controller_manager,
        })
    }

    /// The options and the index that [`Self::to_json`] wrote.
    pub(super) fn from_json(folder: PathBuf, text: &str) -> Result<(Self, u8)> {
        let value: Value = serde_json::from_str(text)?;
        let index = value["index"].as_u64().context("no index")?;
        let disks = value["disks"].as_array().context("no disks")?;
        let options = Self {
            folder,
            disks: disks.iter().map(disk).collect::<Result<_>>()?,
            snapshots: value["snapshots"].as_bool().unwrap_or_default(),
            snapshot_controller: value["snapshotController"].as_bool().unwrap_or_default(),
            apiserver: texts(&value["apiserver"]),
            controller_manager: texts(&value["controllerManager"]),
        };
        Ok((options, u8::try_from(index)?))
    }
}

/// The filesystem that is called `name`.
///
/// # Errors
/// When there is none of that name.
pub fn filesystem(name: &str) -> Result<FsKind> {
    let found = FsKind::ALL.into_iter().find(|kind| kind.name() == name);
    match found {
        Some(kind) => Ok(kind),
        None => bail!("{name} is no filesystem for a pool: choose xfs, btrfs or ext4"),
    }
}

fn disk(value: &Value) -> Result<Disk> {
    Ok(Disk {
        kind: filesystem(value["kind"].as_str().unwrap_or_default())?,
        bytes: value["bytes"].as_u64().context("a disk without a size")?,
    })
}

fn texts(value: &Value) -> Vec<String> {
    let entries = value.as_array().into_iter().flatten();
    entries
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_back_as_they_were_written() {
        let folder = PathBuf::from("/somewhere");
        let mut options = Options::new(folder.clone());
        options.disks[1] = Disk {
            kind: FsKind::Ext4,
            bytes: 7,
        };
        options.apiserver = vec!["--v=3".to_owned()];
        options.snapshot_controller = false;
        let text = options.to_json(4).to_string();
        assert_eq!(Options::from_json(folder, &text).unwrap(), (options, 4));
    }

    #[test]
    fn an_unknown_filesystem_is_refused_with_a_choice() {
        let error = filesystem("zfs").unwrap_err().to_string();
        assert!(error.contains("xfs, btrfs or ext4"), "{error}");
    }
}

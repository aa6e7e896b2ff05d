//! One filesystem, one pool on it, one server: where every test starts, and what it must leave in order.

use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::kubelet::Attachment;
use crate::scratch_fs::{FsKind, GIB, ScratchFs};
use crate::server::{Server, Setup};
use crate::tools::Ran;
use crate::{binaries, check, csi, kubelet, residue, tools};

/// Size of a pool's filesystem when the test does not care. Sparse: only what is written takes space.
const USUAL_BYTES: u64 = 24 * GIB;
/// The node's name in every test.
pub const NODE: &str = "test-node";

/// A running server on a fresh pool.
///
/// When it goes out of scope, the pool is checked and nothing may be left of what the test attached; then all of it
/// goes. [`Fixture::spoiled`] is for tests that damage the pool on purpose.
#[derive(Debug)]
pub struct Fixture {
    // Dropped in this order: the connection, the server, then what it stood on.
    /// A connection to the server. [`Fixture::reconnect`] after a restart.
    pub csi: Client,
    /// The server.
    pub server: Server,
    /// The filesystem.
    pub fs: ScratchFs,
    checked: bool,
}

impl Fixture {
    /// A pool on a filesystem of `kind` and the shipped server.
    #[must_use]
    pub fn on(kind: FsKind) -> Self {
        Self::with(kind, USUAL_BYTES, |setup| setup)
    }

    /// A pool on a filesystem of `bytes`.
    #[must_use]
    pub fn sized(kind: FsKind, bytes: u64) -> Self {
        Self::with(kind, bytes, |setup| setup)
    }

    /// A pool on a filesystem of `bytes` and a server started as `change` says.
    #[must_use]
    pub fn with(kind: FsKind, bytes: u64, change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::with_fs(ScratchFs::new(kind, bytes), change)
    }

    /// A pool on the filesystem `fs`, which is empty, and a server started as `change` says.
    #[must_use]
    pub fn with_fs(fs: ScratchFs, change: impl FnOnce(Setup) -> Setup) -> Self {
        let _said = initialise(&fs.mount_point()).ok();
        let setup = change(Setup::new(fs.folder()));
        let server = Server::start(setup);
        let csi = server.client();
        std::fs::create_dir(fs.folder().join("kubelet")).expect("make kubelet's folder");
        Self {
            csi,
            server,
            fs,
            checked: false,
        }
    }

    /// The pool's folder.
    #[must_use]
    pub fn pool(&self) -> PathBuf {
        self.fs.mount_point()
    }

    /// The folder that stands for `/var/lib/kubelet`.
    #[must_use]
    pub fn kubelet(&self) -> PathBuf {
        self.fs.folder().join("kubelet")
    }

    /// The volume's image file.
    #[must_use]
    pub fn image(&self, volume_id: &str) -> PathBuf {
        self.pool().join("volumes").join(volume_id).join("disk.img")
    }

    /// The snapshot's file.
    #[must_use]
    pub fn snapshot_file(&self, snapshot_id: &str) -> PathBuf {
        self.pool()
            .join("snapshots")
            .join(snapshot_id)
            .join("image.qcow2")
    }

    /// The volume as the pod `pod` uses it.
    #[must_use]
    pub fn attachment(
        &self,
        volume_id: &str,
        pod: &str,
        capability: &csi::VolumeCapability,
    ) -> Attachment {
        Attachment::new(&self.kubelet(), volume_id, pod, capability.clone())
    }

    /// A new volume, staged and published in one pod.
    #[track_caller]
    #[must_use]
    pub fn published(&self, name: &str, bytes: u64, how: &csi::VolumeCapability) -> Attachment {
        let request = crate::requests::volume(name, bytes, how.clone());
        let volume = self.csi.made_volume(request);
        let attachment = self.attachment(&volume.volume_id, "pod-1", how);
        attachment.up(&self.csi);
        attachment
    }

    /// Connects anew, after the server was started again.
    #[track_caller]
    pub fn reconnect(&mut self) {
        self.csi = self.server.client();
    }

    /// `kill -9` of the server, and a start.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.server.kill();
        self.server.start_again();
        self.reconnect();
    }

    /// What a reboot of the node does: every process, mount and loop device is gone; folders and data stay.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.server.kill_tree();
        self.fs.take_apart_users();
        self.fs.unmount();
        self.fs.mount();
        self.server.start_again();
        self.reconnect();
    }

    /// Runs `vdctl` with `arguments` and `--pool`.
    #[must_use]
    pub fn vdctl(&self, arguments: &[&str]) -> Ran {
        let pool = kubelet::text(&self.pool());
        let arguments = [arguments, &["--pool", pool.as_str()]].concat();
        tools::attempt(binaries::shipped(), &arguments)
    }

    /// The pool was damaged on purpose: only the kernel's side is checked at the end.
    #[track_caller]
    pub fn spoiled(mut self) {
        self.checked = true;
        let left: Vec<String> = residue::find(&self.fs, Some(self.server.pid()))
            .into_iter()
            .filter(|line| !line.starts_with("in the pool"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// The checks that every test ends with; also useful in the middle of one.
    #[track_caller]
    pub fn check(&self) {
        residue::none(&self.fs, Some(self.server.pid()));
        check::clean(&self.pool());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A test that has failed has said why; what it left is no news.
        if !self.checked && !std::thread::panicking() {
            self.check();
        }
    }
}

/// `vdctl pool init` on `folder`.
#[must_use]
pub fn initialise(folder: &Path) -> Ran {
    let folder = kubelet::text(folder);
    tools::attempt(
        binaries::shipped(),
        &["pool", "init", &folder, "--node", NODE],
    )
}

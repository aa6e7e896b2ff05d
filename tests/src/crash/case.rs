//! One pool that is crashed: its server, its bystanders, and the checks that hold after any crash.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pool::record::{FormatState, VolumeMode};
use pool::{SnapshotId, View, VolumeId};
use tonic::Status;

use super::scenario::Fault;
use crate::client::{Client, accepted};
use crate::fixture::initialise;
use crate::kubelet::Attachment;
use crate::scratch_fs::{MIB, ScratchFs};
use crate::server::{Server, Setup};
use crate::{check, content, csi, loops, requests, residue, wait};

/// Size of a volume that is read whole again and again.
pub const SMALL: u64 = 16 * MIB;
/// How long the trash may take in the background.
const TRASH_LIMIT: Duration = Duration::from_secs(20);
const BYSTANDER: &str = "bystander";
const BYSTANDER_CUT: &str = "bystander-cut";

/// A fresh pool on a filesystem that many cases share, one after the other.
#[derive(Debug)]
pub struct Case<'fs> {
    /// A connection to the server that runs now.
    pub csi: Client,
    /// The server.
    pub server: Server,
    /// What happens at the step.
    pub fault: Fault,
    /// Mounts and loop devices are gone, and nobody has asked for them again.
    pub rebooted: bool,
    fs: &'fs ScratchFs,
    healthy: Setup,
    kubelet: PathBuf,
    volume_digest: String,
    cut_digest: String,
}

impl<'fs> Case<'fs> {
    /// A pool with a volume and a snapshot that nothing may touch, and a server without faults.
    #[must_use]
    pub fn new(fs: &'fs ScratchFs, number: usize, fault: Fault) -> Self {
        let pool = fs.mount_point().join(format!("case-{number}"));
        std::fs::create_dir(&pool).expect("make the pool's folder");
        let _said = initialise(&pool).ok();
        let kubelet = fs.folder().join("kubelet").join(number.to_string());
        std::fs::create_dir_all(&kubelet).expect("make kubelet's folder");
        let mut healthy = Setup::new(fs.folder());
        healthy.pool = pool;
        let server = Server::start(healthy.clone());
        let csi = server.client();
        let mut case = Self {
            csi,
            server,
            fault,
            rebooted: false,
            fs,
            healthy,
            kubelet,
            volume_digest: String::new(),
            cut_digest: String::new(),
        };
        case.make_bystanders();
        case
    }

    fn make_bystanders(&mut self) {
        let volume = self.filled(BYSTANDER, SMALL);
        let _cut = self
            .csi
            .made_snapshot(requests::snapshot(BYSTANDER_CUT, &volume));
        self.volume_digest = content::digest(&self.image(&volume));
        self.cut_digest = content::digest(&self.snapshot_file(&self.source_cut()));
    }

    /// The pool's folder.
    #[must_use]
    pub fn pool(&self) -> &Path {
        &self.healthy.pool
    }

    /// A volume with content that a story may copy, and must not change.
    #[must_use]
    pub fn source(&self) -> String {
        volume_id(BYSTANDER)
    }

    /// A snapshot of [`Self::source`] that a story may restore.
    #[must_use]
    pub fn source_cut(&self) -> String {
        snapshot_id(BYSTANDER_CUT)
    }

    /// Digest over everything in [`Self::source`].
    #[must_use]
    pub fn source_digest(&self) -> &str {
        &self.volume_digest
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
        how: &csi::VolumeCapability,
    ) -> Attachment {
        Attachment::new(&self.kubelet, volume_id, pod, how.clone())
    }

    /// Makes a block volume with content in it, synced, and returns its id.
    #[track_caller]
    #[must_use]
    pub fn filled(&self, name: &str, bytes: u64) -> String {
        let request = requests::volume(name, bytes, requests::block());
        let id = self.csi.made_volume(request).volume_id;
        let image = self.image(&id);
        for (at, length) in [(0, MIB), (bytes / 3, 64 << 10), (bytes - 4096, 4096)] {
            let length = usize::try_from(length).expect("a length");
            content::write_at(&image, at, &content::pattern(name, length));
        }
        id
    }

    /// The volume in the list of volumes.
    #[track_caller]
    #[must_use]
    pub fn listed(&self, volume_id: &str) -> Option<csi::Volume> {
        let list = accepted(self.csi.list_volumes(csi::ListVolumesRequest::default()));
        let mut volumes = list.entries.into_iter().filter_map(|entry| entry.volume);
        volumes.find(|volume| volume.volume_id == volume_id)
    }

    /// Whether the snapshot is in the list of snapshots.
    #[track_caller]
    #[must_use]
    pub fn has_snapshot(&self, snapshot_id: &str) -> bool {
        self.csi.snapshot_ids().iter().any(|id| id == snapshot_id)
    }

    /// The loop devices on files of the filesystem that the pool lies on.
    #[must_use]
    pub fn loops(&self) -> Vec<loops::Loop> {
        self.fs.loops()
    }

    /// `kill -9`, and a start with `fault`; returns when the server is ready.
    #[track_caller]
    pub fn start_with(&mut self, fault: &str) {
        self.server.start_as(self.healthy.clone().with_fault(fault));
        self.server.wait_ready();
        self.csi = self.server.client();
    }

    /// A start with `fault` of which the server dies before it is ready.
    #[track_caller]
    pub fn die_starting_with(&mut self, fault: &str) {
        self.server.start_as(self.healthy.clone().with_fault(fault));
        self.server.wait_killed();
    }

    /// A start without faults that is killed from outside when `life` has passed, ready or not.
    pub fn start_and_kill_after(&mut self, life: Duration) {
        self.server.start_as(self.healthy.clone());
        std::thread::sleep(life);
        self.server.kill();
    }

    /// A start without faults.
    #[track_caller]
    pub fn start(&mut self) {
        self.server.start_as(self.healthy.clone());
        self.server.wait_ready();
        self.csi = self.server.client();
    }

    /// Starts with `fault`, does `act` and sees the server die of it. Whether `act` was acknowledged before that.
    #[track_caller]
    pub fn die_in(&mut self, fault: &str, act: impl FnOnce(&Self) -> Result<(), Status>) -> bool {
        self.start_with(fault);
        let acknowledged = act(self).is_ok();
        self.server.wait_killed();
        acknowledged
    }

    /// What comes after the fault before anybody can start a server again: nothing after a kill, a reboot after a power
    /// loss.
    #[track_caller]
    pub fn after_the_fault(&mut self) {
        if self.fault == Fault::PowerLoss {
            self.reboot();
        }
    }

    /// Processes, mounts and loop devices go, and the filesystem is mounted anew.
    #[track_caller]
    pub fn reboot(&mut self) {
        self.server.kill_tree();
        self.fs.take_apart_users();
        self.fs.unmount();
        self.fs.mount();
        self.rebooted = true;
    }

    /// Does `act`, and the power goes as soon as it is acknowledged: what was not synced is lost. Leaves the filesystem
    /// mounted anew and no server.
    #[track_caller]
    pub fn lose_power_after(&mut self, act: impl FnOnce(&Self) -> Result<(), Status>) {
        let any_file = File::open(self.pool()).expect("open the pool's folder");
        accepted(act(self));
        pool::sys::shutdown_xfs(&any_file).expect("shut the filesystem down");
        drop(any_file);
        self.reboot();
    }

    /// The record on the disk says that the volume was staged, and its filesystem, if it has one, is made.
    #[track_caller]
    pub fn is_recorded_as_staged(&self, volume_id: &str) {
        let id = VolumeId::parse(volume_id).expect("an id");
        let record = View::open(self.pool()).and_then(|view| view.volume(&id));
        let record = record.unwrap_or_else(|error| panic!("{error}"));
        assert!(record.staged, "not recorded as staged");
        if let VolumeMode::Filesystem(format) = record.mode {
            assert_eq!(format.state, FormatState::Formatted);
        }
    }

    /// What holds after any crash, on a running server.
    #[track_caller]
    pub fn bystanders_are_whole(&self) {
        let source = self.source();
        assert!(self.listed(&source).is_some(), "the bystander is gone");
        assert!(
            self.has_snapshot(&self.source_cut()),
            "the bystander's snapshot is gone"
        );
        assert_eq!(
            content::digest(&self.image(&source)),
            self.volume_digest,
            "the bystander has changed"
        );
        assert_eq!(
            content::digest(&self.snapshot_file(&self.source_cut())),
            self.cut_digest,
            "the bystander's snapshot has changed"
        );
    }

    /// Nothing is in the making or waits to be freed at this moment.
    #[must_use]
    pub fn is_tidy(&self) -> bool {
        ["tmp", "trash"].iter().all(|name| {
            let listed = std::fs::read_dir(self.pool().join(name));
            listed.is_ok_and(|mut entries| entries.next().is_none())
        })
    }

    /// Nothing unfinished is left in the pool, or will be after a moment.
    #[track_caller]
    pub fn nothing_is_unfinished(&self) {
        let left = || {
            let folders = ["tmp", "trash"].map(|name| names(&self.pool().join(name)));
            folders.concat()
        };
        let _emptied = wait::holds_within(TRASH_LIMIT, || left().is_empty());
        assert_eq!(left(), Vec::<String>::new(), "left in tmp/ or trash/");
        for part in ["volumes", "snapshots"] {
            for object in names(&self.pool().join(part)) {
                let mut files = names(&self.pool().join(part).join(&object));
                files.sort_unstable();
                assert!(
                    files == ["disk.img", "record"] || files == ["image.qcow2", "record"],
                    "{part}/{object} holds {files:?}"
                );
            }
        }
        check::clean(self.pool());
    }

    /// The same, and nothing is left in the kernel.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        self.nothing_is_unfinished();
        residue::none(self.fs, Some(self.server.pid()));
    }

    /// The folders of volumes and snapshots, whether or not the server knows them.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let mut found = ["volumes", "snapshots", "tmp"]
            .map(|part| names(&self.pool().join(part)))
            .concat();
        found.sort_unstable();
        found
    }

    /// The same with the files in each, their sizes, and what the records say.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<PathBuf, (u64, String)> {
        let mut found = BTreeMap::new();
        for part in ["volumes", "snapshots", "tmp"].map(|part| self.pool().join(part)) {
            for folder in names(&part).iter().map(|name| part.join(name)) {
                found.insert(folder.clone(), (0, String::new()));
                for file in names(&folder).iter().map(|name| folder.join(name)) {
                    let is_record = file.file_name().is_some_and(|name| name == "record");
                    let read = || std::fs::read_to_string(&file).expect("read a record");
                    let record = is_record.then(read).unwrap_or_default();
                    let size = content::size_of(&file);
                    found.insert(file, (size, record));
                }
            }
        }
        found
    }

    /// How often a server has opened the pool.
    #[must_use]
    pub fn openings(&self) -> usize {
        self.server.log_text().matches("the pool is open").count()
    }

    /// A volume and a snapshot that have nothing to do with the story come and go.
    #[track_caller]
    pub fn others_go_on(&self) {
        let volume = self.filled("passing by", SMALL);
        let grow = requests::expand(&volume, SMALL + MIB, requests::block());
        let grown = accepted(self.csi.controller_expand_volume(grow));
        assert_eq!(grown.capacity_bytes, requests::signed(SMALL + MIB));
        let cut = self
            .csi
            .made_snapshot(requests::snapshot("passing by", &volume));
        accepted(self.csi.delete(&volume));
        accepted(self.csi.delete_cut(&cut.snapshot_id));
    }

    /// Removes the pool, so that the cases after it have the space.
    pub fn remove(mut self) {
        self.server.kill();
        std::fs::remove_dir_all(self.pool()).expect("remove the pool");
    }
}

/// The id of the volume called `name`.
#[must_use]
pub fn volume_id(name: &str) -> String {
    VolumeId::from_name(name).to_string()
}

/// The id of the snapshot called `name`.
#[must_use]
pub fn snapshot_id(name: &str) -> String {
    SnapshotId::from_name(name).to_string()
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("list {}: {error}", folder.display()))
        .map(|entry| {
            let name = entry.expect("list a folder").file_name();
            name.to_string_lossy().into_owned()
        })
        .collect()
}

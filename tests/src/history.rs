//! What happens to a pool over the years, in a minute: volumes come, are written, cut, grown and go, as chance will.

use crate::chance::Random;
use crate::client::{Client, accepted, shown};
use crate::csi;
use crate::fixture::Fixture;
use crate::kubelet::Attachment;
use crate::scratch_fs::{FsKind, MIB};
use crate::{requests, rewrite};
use pool::{OpenSnapshot, SnapshotId, View};
use tonic::{Code, Status};

/// How often it is tried to give out everything, while the compression of snapshots changes how much that is.
const CHANGES: usize = 20;

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Volumes made.
    pub volumes: u64,
    /// Snapshots cut.
    pub snapshots: u64,
    /// Volumes restored or cloned.
    pub copies: u64,
    /// Snapshots that somebody began to read.
    pub readers: u64,
    /// Volumes grown.
    pub expansions: u64,
    /// Objects deleted.
    pub deletions: u64,
    /// Requests refused for want of room.
    pub refusals: u64,
    /// Bytes that guests wrote.
    pub written: u64,
}

/// One history on a pool that is empty before and afterwards.
#[derive(Debug)]
pub struct History<'a> {
    fixture: &'a Fixture,
    random: Random,
    largest: u64,
    volumes: Vec<Attachment>,
    snapshots: Vec<String>,
    /// Snapshots that somebody exports, for some time, whatever becomes of them.
    readers: Vec<OpenSnapshot>,
    names: u64,
    /// What happened.
    pub counts: Counts,
}

impl<'a> History<'a> {
    /// A history with volumes of at most `largest` MiB when they are made.
    #[must_use]
    pub fn new(fixture: &'a Fixture, random: Random, largest: u64) -> Self {
        Self {
            fixture,
            random,
            largest,
            volumes: Vec::new(),
            snapshots: Vec::new(),
            readers: Vec::new(),
            names: 0,
            counts: Counts::default(),
        }
    }

    fn client(&self) -> &'a Client {
        &self.fixture.csi
    }

    /// Lets `steps` things happen.
    #[track_caller]
    pub fn run(&mut self, steps: usize) {
        for _step in 0..steps {
            match self.random.within(0..100) {
                0..26 => self.create(),
                26..44 => self.snapshot(),
                44..50 => self.copy(),
                50..58 => self.expand(),
                58..64 => self.delete_volume(),
                64..70 => self.delete_snapshot(),
                70..82 => self.read(),
                _ => self.rewrite_one(),
            }
            if self.random.chance(5) {
                self.readers.clear();
            }
        }
    }

    /// Gives out everything that is promised, to the last MiB, then lets every guest write all it has.
    #[track_caller]
    pub fn claim_everything(&mut self) {
        if self.random.chance(33) {
            self.read_what_is_gone();
        }
        // What is compressed in the background takes room, and gives some back: only when it stands still is a promise one. A snapshot
        // that turns out to have no room to be compressed has taken some for a moment, and is then left alone for a minute.
        let mut attempts = self.snapshots.len();
        for _changed in 0..CHANGES {
            let promised = u64::try_from(self.client().free_bytes()).expect("never negative");
            if promised == 0 {
                break;
            }
            let (name, thick) = (self.name(), self.random.chance(50));
            match self.try_create(&name, promised, thick) {
                Ok(volume) => self.attach(&volume),
                Err(status) => {
                    let now = u64::try_from(self.client().free_bytes()).expect("never negative");
                    let what = format!("{promised} bytes were promised: {}", shown(&status));
                    if now == promised && !self.is_compressing() {
                        assert!(attempts > 0, "{what}");
                        attempts -= 1;
                    }
                }
            }
        }
        for at in 0..self.volumes.len() {
            self.rewrite(at);
        }
    }

    /// Takes everything away.
    #[track_caller]
    pub fn end(mut self) -> Counts {
        self.readers.clear();
        for volume in std::mem::take(&mut self.volumes) {
            volume.down_and_delete(self.client());
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            accepted(self.client().delete_cut(&snapshot));
        }
        self.counts
    }

    /// Whether an image is being made that may take the place of another one.
    fn is_compressing(&self) -> bool {
        let made = std::fs::read_dir(self.fixture.pool().join("tmp")).expect("list tmp/");
        made.count() > 0
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("history {}", self.names)
    }

    fn size(&mut self) -> u64 {
        self.random.within(1..self.largest + 1) * MIB
    }

    fn try_create(&self, name: &str, bytes: u64, thick: bool) -> Result<csi::Volume, Status> {
        let request = requests::volume(name, bytes, requests::block());
        let how = if thick { "thick" } else { "thin" };
        let request = requests::with_parameter(request, "provisioning", how);
        let answer = self.client().create_volume(request)?;
        Ok(answer.volume.expect("the answer holds a volume"))
    }

    fn create(&mut self) {
        let (name, bytes, thick) = (self.name(), self.size(), self.random.chance(30));
        let made = self.try_create(&name, bytes, thick);
        if let Some(volume) = self.granted(made) {
            self.counts.volumes += 1;
            self.attach(&volume);
        }
    }

    fn attach(&mut self, volume: &csi::Volume) {
        let how = requests::block();
        let attachment = self.fixture.attachment(&volume.volume_id, "pod", &how);
        attachment.up(self.client());
        self.volumes.push(attachment);
    }

    /// Want of room is no failure; anything else is.
    #[track_caller]
    fn granted<T>(&mut self, result: Result<T, Status>) -> Option<T> {
        match result {
            Ok(made) => Some(made),
            Err(status) => {
                // The second is that of an expansion.
                let no_room = [Code::ResourceExhausted, Code::OutOfRange];
                assert!(no_room.contains(&status.code()), "{}", shown(&status));
                self.counts.refusals += 1;
                None
            }
        }
    }

    fn any_volume(&mut self) -> Option<usize> {
        (!self.volumes.is_empty()).then(|| self.random.place(self.volumes.len()))
    }

    fn any_snapshot(&mut self) -> Option<usize> {
        (!self.snapshots.is_empty()).then(|| self.random.place(self.snapshots.len()))
    }

    /// Where blocks cannot be shared, a volume that is in use cannot be copied.
    fn quietly<T>(&self, at: usize, what: impl FnOnce() -> T) -> T {
        if self.fixture.fs.kind() != FsKind::Ext4 {
            return what();
        }
        self.volumes[at].down(self.client());
        let result = what();
        self.volumes[at].up(self.client());
        result
    }

    fn snapshot(&mut self) {
        let Some(at) = self.any_volume() else { return };
        let name = self.name();
        // Half of them are replaced by smaller ones, sooner or later.
        let request = if self.random.chance(50) {
            requests::snapshot(&name, &self.volumes[at].volume_id)
        } else {
            requests::compressed_snapshot(&name, &self.volumes[at].volume_id)
        };
        let made = self.quietly(at, || self.client().create_snapshot(request));
        if let Some(answer) = self.granted(made) {
            let snapshot = answer.snapshot.expect("the answer holds a snapshot");
            self.snapshots.push(snapshot.snapshot_id);
            self.counts.snapshots += 1;
        }
    }

    fn copy(&mut self) {
        // Without a size, the new volume gets its source's.
        let mut request = requests::volume(&self.name(), 0, requests::block());
        request.capacity_range = None;
        let made = match (self.any_volume(), self.any_snapshot()) {
            (_, Some(at)) => {
                let request = requests::from_snapshot(request, &self.snapshots[at]);
                self.client().create_volume(request)
            }
            (Some(at), None) => {
                let request = requests::from_volume(request, &self.volumes[at].volume_id);
                self.quietly(at, || self.client().create_volume(request))
            }
            (None, None) => return,
        };
        if let Some(answer) = self.granted(made) {
            self.counts.copies += 1;
            self.attach(&answer.volume.expect("the answer holds a volume"));
        }
    }

    fn expand(&mut self) {
        let Some(at) = self.any_volume() else { return };
        let now = crate::content::size_of(&self.volumes[at].target);
        let bytes = now + self.random.within(1..self.largest / 2) * MIB;
        let request = requests::expand(&self.volumes[at].volume_id, bytes, requests::block());
        let grown = self.client().controller_expand_volume(request);
        if self.granted(grown).is_some() {
            self.counts.expansions += 1;
            let size = crate::content::size_of(&self.volumes[at].target);
            assert_eq!(
                size, bytes,
                "the device of a published volume grows with it"
            );
        }
    }

    fn delete_volume(&mut self) {
        let Some(at) = self.any_volume() else { return };
        self.volumes.swap_remove(at).down_and_delete(self.client());
        self.counts.deletions += 1;
    }

    fn delete_snapshot(&mut self) {
        let Some(at) = self.any_snapshot() else {
            return;
        };
        accepted(self.client().delete_cut(&self.snapshots.swap_remove(at)));
        self.counts.deletions += 1;
    }

    /// As `vdctl snapshot export` does, and like it without a word to the server. The snapshot may be deleted at once.
    fn read(&mut self) {
        let Some(at) = self.any_snapshot() else {
            return;
        };
        let id = SnapshotId::parse(&self.snapshots[at]).expect("an id");
        self.readers.push(self.opened(&id));
        self.counts.readers += 1;
        if self.random.chance(50) {
            accepted(self.client().delete_cut(&self.snapshots.swap_remove(at)));
            self.counts.deletions += 1;
        }
    }

    /// Snapshots of full volumes are deleted while they are read: all their blocks are still those of the volumes.
    fn read_what_is_gone(&mut self) {
        for at in 0..self.volumes.len() {
            self.rewrite(at);
            let request = requests::snapshot(&self.name(), &self.volumes[at].volume_id);
            let made = self.quietly(at, || self.client().create_snapshot(request));
            if let Some(answer) = self.granted(made) {
                let snapshot = answer.snapshot.expect("the answer holds a snapshot");
                let id = SnapshotId::parse(&snapshot.snapshot_id).expect("an id");
                self.readers.push(self.opened(&id));
                self.counts.readers += 1;
                accepted(self.client().delete_cut(&snapshot.snapshot_id));
            }
        }
    }

    fn opened(&self, id: &SnapshotId) -> OpenSnapshot {
        let opened = View::open(&self.fixture.pool()).and_then(|view| view.open_snapshot(id));
        opened.unwrap_or_else(|error| panic!("open {id}: {error}"))
    }

    fn rewrite_one(&mut self) {
        if let Some(at) = self.any_volume() {
            self.rewrite(at);
        }
    }

    #[track_caller]
    fn rewrite(&mut self, at: usize) {
        let device = &self.volumes[at].target;
        let bytes = crate::content::size_of(device);
        // The smallest pieces make the most extents, and take the longest.
        let smallest = if bytes > 24 * MIB { 1 << 16 } else { 1 << 12 };
        let piece = [smallest, 1 << 18, 1 << 20][self.random.place(3)];
        self.counts.written += bytes;
        if let Err(error) = rewrite::all(device, piece, &mut self.random) {
            panic!("the promise is broken: {error} after {:?}", self.counts);
        }
    }
}

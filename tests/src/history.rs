//! What happens to a pool over the years, in a minute: volumes come, are written, cut, grown and go, as chance will.

use crate::chance::Random;
use crate::client::{Client, accepted, shown};
use crate::csi;
use crate::fixture::Fixture;
use crate::kubelet::Attachment;
use crate::scratch_fs::{FsKind, MIB};
use crate::{requests, rewrite};
use tonic::{Code, Status};

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Volumes made.
    pub volumes: u64,
    /// Snapshots cut.
    pub snapshots: u64,
    /// Volumes restored or cloned.
    pub copies: u64,
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
                0..30 => self.create(),
                30..52 => self.snapshot(),
                52..60 => self.copy(),
                60..70 => self.expand(),
                70..76 => self.delete_volume(),
                76..84 => self.delete_snapshot(),
                _ => self.rewrite_one(),
            }
        }
    }

    /// Gives out everything that is promised, to the last MiB, then lets every guest write all it has.
    #[track_caller]
    pub fn claim_everything(&mut self) {
        let promised = u64::try_from(self.client().free_bytes()).expect("never negative");
        if promised > 0 {
            let name = self.name();
            let thick = self.random.chance(50);
            let made = self.try_create(&name, promised, thick);
            let volume = made.unwrap_or_else(|status| {
                panic!("{promised} bytes were promised: {}", shown(&status))
            });
            self.attach(&volume);
        }
        for at in 0..self.volumes.len() {
            self.rewrite(at);
        }
    }

    /// Takes everything away.
    #[track_caller]
    pub fn end(mut self) -> Counts {
        for volume in std::mem::take(&mut self.volumes) {
            volume.down_and_delete(self.client());
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            accepted(self.client().delete_cut(&snapshot));
        }
        self.counts
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
        let request = requests::snapshot(&self.name(), &self.volumes[at].volume_id);
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

//! One who follows the crew: writes out what was written, and reads it back if that is wanted, while they go on.
//!
//! ```text
//! packers ─> batches, written ─> in their order: a group ─> on its way to the disk, while the group before it is waited for,
//!                                                          read from the disk past the page cache, and held against its hashes
//! ```
//! What stays in the page cache is written out by the kernel's own threads, which do not yield to anybody: so whoever yields has to
//! write it out himself. And what is on the disk makes room in the page cache again, which is the guests'.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use blake3::Hash;
use nix::errno::Errno;
use pool::{Context, Result};

use super::crew::Work;
use super::pieces::Piece;
use super::{Proof, misread};
use crate::advice;
use crate::direct::{self, ALIGNED, Memory};
use crate::gang::LOOK;
use crate::layout::CLUSTER_BYTES;

/// So much is written out at once,
const GROUP_BYTES: u64 = 8 << 20;
/// and no more clusters than this: streams may be small.
const GROUP_CLUSTERS: usize = 8192;
/// The crew waits while more groups than this are before the one who follows.
const GROUPS_AHEAD: usize = 4;
/// What is read by one call.
const READ_BYTES: u64 = 1 << 20;

/// What was stored for a cluster of the disk: where, without what fills it up, and the hash of it if it is to be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: Range<u64>,
    pub(super) hash: Option<Hash>,
}

impl Stored {
    fn is_stream(&self) -> bool {
        self.bytes.end - self.bytes.start < CLUSTER_BYTES
    }

    /// The whole pages that it is in.
    fn pages(&self) -> Range<u64> {
        page_of(self.bytes.start)..self.bytes.end.next_multiple_of(ALIGNED)
    }
}

fn page_of(byte: u64) -> u64 {
    byte - byte % ALIGNED
}

/// What was written, and nobody has followed there yet.
#[derive(Debug, Default)]
struct Queue {
    /// Batches that were written before one before them was.
    early: BTreeMap<u64, Vec<Stored>>,
    /// The first batch that was not written.
    next: u64,
    /// Of all batches before that, in the order of the disk.
    written: VecDeque<Stored>,
    written_bytes: u64,
    /// Where the last stream of them ends. Its page is not done: the next stream begins there.
    open: u64,
}

impl Queue {
    fn add(&mut self, batch: u64, stored: Vec<Stored>) {
        let _none = self.early.insert(batch, stored);
        while let Some(stored) = self.early.remove(&self.next) {
            self.next += 1;
            for one in &stored {
                self.written_bytes += one.bytes.end - one.bytes.start;
                if one.is_stream() {
                    self.open = one.bytes.end;
                }
            }
            self.written.extend(stored);
        }
    }

    fn groups(&self) -> usize {
        let by_bytes = usize::try_from(self.written_bytes / GROUP_BYTES).unwrap_or(usize::MAX);
        by_bytes.max(self.written.len() / GROUP_CLUSTERS)
    }

    /// The next clusters, a group at most, and none of the page that is still written to unless this is the end.
    fn take(&mut self, at_the_end: bool) -> Vec<Stored> {
        let (mut group, mut late, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < GROUP_BYTES
            && group.len() < GROUP_CLUSTERS
            && let Some(one) = self.written.pop_front()
        {
            let length = one.bytes.end - one.bytes.start;
            let is_done = at_the_end || !one.is_stream() || one.pages().end <= page_of(self.open);
            if is_done {
                bytes += length;
                self.written_bytes -= length;
                group.push(one);
            } else {
                late.push(one);
            }
        }
        late.into_iter()
            .rev()
            .for_each(|one| self.written.push_front(one));
        group
    }
}

/// See the module. Shared by the crew and the one who follows.
pub(super) struct Follower<'f> {
    target: &'f File,
    reads_back: bool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl<'f> Follower<'f> {
    pub(super) fn new(target: &'f File, proof: Proof) -> Self {
        Self {
            target,
            reads_back: proof == Proof::ReadBack,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Says what was written of a batch. Waits while the one who follows is too far behind.
    pub(super) fn written<I>(&self, batch: u64, stored: Vec<Stored>, work: &Work<I>) {
        let mut queue = self.queue();
        queue.add(batch, stored);
        self.changed.notify_all();
        while queue.groups() > GROUPS_AHEAD && !work.is_stopped() {
            queue = self.wait(queue);
        }
    }

    /// Follows until there is nothing left of `work`.
    ///
    /// # Errors
    /// `Io`, also when something is not what was written. What the kernel could not write out is lost, and nobody is told a second time.
    pub(super) fn follow<I>(&self, work: &Work<I>) -> Result<()>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        let mut reader = self.reads_back.then(|| Reader::new(self.target));
        let mut before = Vec::new();
        while let Some(group) = self.next(work) {
            let pages = pages_of(&group);
            pool::sys::begin_write_out(self.target, pages.start, pages.end - pages.start)
                .during("write out the packed image")?;
            self.finish(&before, reader.as_mut())?;
            before = group;
        }
        if work.is_stopped() {
            return Ok(());
        }
        self.finish(&before, reader.as_mut())
    }

    /// Waits until a group is on the disk, and proves that.
    fn finish(&self, group: &[Stored], reader: Option<&mut Reader<'_>>) -> Result<()> {
        // Of no bytes the kernel would think that all up to the end are meant, and wait for what the crew is just writing.
        if group.is_empty() {
            return Ok(());
        }
        let pages = pages_of(group);
        pool::sys::write_out(self.target, pages.start, pages.end - pages.start)
            .during("write out the packed image")?;
        advice::forget(self.target, &pages);
        match reader {
            Some(reader) => reader.prove(group),
            None => Ok(()),
        }
    }

    /// The next group; `None` at the end, or when the work was stopped.
    fn next<I>(&self, work: &Work<I>) -> Option<Vec<Stored>>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        let mut queue = self.queue();
        while !work.is_stopped() {
            let at_the_end = work.batches() == Some(queue.next);
            if at_the_end || queue.groups() > 0 {
                let mut group = queue.take(at_the_end);
                self.changed.notify_all();
                if !group.is_empty() {
                    group.sort_unstable_by_key(|one| one.bytes.start);
                    return Some(group);
                }
                if at_the_end {
                    return None;
                }
            }
            queue = self.wait(queue);
        }
        None
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever stops the work tells nobody, so never for long.
    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let waited = self.changed.wait_timeout(queue, LOOK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// From the first page of all to the last.
fn pages_of(group: &[Stored]) -> Range<u64> {
    let pages = group.iter().map(Stored::pages);
    let all = pages.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
    all.unwrap_or_default()
}

/// Reads an image back.
struct Reader<'f> {
    image: &'f File,
    direct: Option<File>,
    memory: Memory,
}

impl<'f> Reader<'f> {
    fn new(image: &'f File) -> Self {
        let direct = direct::open(image, false);
        if let Err(error) = &direct {
            tracing::debug!(%error, "a packed image is read back through the page cache");
        }
        Self {
            image,
            direct: direct.ok(),
            memory: Memory::new(READ_BYTES + 2 * ALIGNED),
        }
    }

    /// Holds a group, in the order of the file, against what was written.
    fn prove(&mut self, mut group: &[Stored]) -> Result<()> {
        while let Some(first) = group.first() {
            let start = first.pages().start;
            let together = group
                .iter()
                .take_while(|one| one.pages().end - start <= READ_BYTES)
                .count();
            let (now, later) = group.split_at(together.max(1));
            let window = pages_of(now);
            self.read(&window)?;
            let bytes = self.memory.get(window.end - window.start);
            for one in now {
                let at = |byte: u64| usize::try_from(byte - window.start).unwrap_or(usize::MAX);
                let found = bytes.get(at(one.bytes.start)..at(one.bytes.end));
                if found.map(blake3::hash) != one.hash {
                    let start = one.bytes.start;
                    return Err(misread(format!("what was written at byte {start} differs")));
                }
            }
            if self.direct.is_none() {
                advice::forget(self.image, &window);
            }
            group = later;
        }
        Ok(())
    }

    /// Reads whole pages; what is behind the end of the file is zero.
    fn read(&mut self, pages: &Range<u64>) -> Result<()> {
        let bytes = self.memory.get(pages.end - pages.start);
        if let Some(direct) = &self.direct {
            match read_up_to_the_end(direct, pages.start, bytes) {
                // What the disk under it wants is not what any disk wants.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                    self.direct = None;
                }
                done => return done.context_with(|| reading(pages)),
            }
        }
        let bytes = self.memory.get(pages.end - pages.start);
        read_up_to_the_end(self.image, pages.start, bytes).context_with(|| reading(pages))
    }
}

fn reading(pages: &Range<u64>) -> String {
    format!("read the packed image back at byte {}", pages.start)
}

/// Past the page cache there is no going on where a read has ended, but for the beginning of a page; the end of a file need not be one.
fn read_up_to_the_end(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    let page = usize::try_from(ALIGNED).unwrap_or(1);
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => {
                done += read;
                if !done.is_multiple_of(page) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes
        .get_mut(done..)
        .into_iter()
        .for_each(|rest| rest.fill(0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use pool::ErrorKind;

    use super::super::crew::{How, share_with};
    use super::super::pieces::{BATCH, Place};
    use super::*;
    use crate::copy::Watch;

    fn stored(bytes: Range<u64>) -> Stored {
        Stored { bytes, hash: None }
    }

    fn taken(queue: &mut Queue, at_the_end: bool) -> Vec<Range<u64>> {
        let group = queue.take(at_the_end);
        group.into_iter().map(|one| one.bytes).collect()
    }

    #[test]
    fn batches_are_followed_in_their_order() {
        let mut queue = Queue::default();
        queue.add(1, vec![stored(CLUSTER_BYTES..2 * CLUSTER_BYTES)]);
        assert_eq!(taken(&mut queue, false), []);
        queue.add(0, vec![stored(0..CLUSTER_BYTES)]);
        assert_eq!(
            taken(&mut queue, false),
            [0..CLUSTER_BYTES, CLUSTER_BYTES..2 * CLUSTER_BYTES]
        );
        assert_eq!((queue.next, queue.written_bytes), (2, 0));
    }

    #[test]
    fn a_page_that_the_next_stream_will_be_written_to_is_left_until_it_was() {
        let mut queue = Queue::default();
        queue.add(0, vec![stored(0..5000), stored(5000..9000)]);
        // A plain cluster ends no page.
        queue.add(1, vec![stored(CLUSTER_BYTES..2 * CLUSTER_BYTES)]);
        assert_eq!(
            taken(&mut queue, false),
            [0..5000, CLUSTER_BYTES..2 * CLUSTER_BYTES]
        );
        assert_eq!(taken(&mut queue, false), []);
        queue.add(2, vec![stored(9000..9100)]);
        assert_eq!(taken(&mut queue, false), []);
        queue.add(3, vec![stored(9100..16000)]);
        assert_eq!(taken(&mut queue, false), [5000..9000, 9000..9100]);
        assert_eq!(queue.take(true), [stored(9100..16000)]);
        assert_eq!(queue.written_bytes, 0);
    }

    #[test]
    fn a_group_is_neither_too_large_nor_of_too_many() {
        let mut queue = Queue::default();
        let plain = |number: u64| stored(number * CLUSTER_BYTES..(number + 1) * CLUSTER_BYTES);
        queue.add(0, (0..200).map(plain).collect());
        assert_eq!(queue.groups(), 1);
        assert_eq!(queue.take(false).len() as u64, GROUP_BYTES / CLUSTER_BYTES);
        assert_eq!(queue.take(false).len(), 200 - 128);
        let tiny = |number: u64| stored(number * 64..number * 64 + 64);
        queue.add(1, (0..20_000).map(tiny).collect());
        assert_eq!(queue.groups(), 2);
        assert_eq!(queue.take(false).len(), GROUP_CLUSTERS);
    }

    /// Packs a disk of so many clusters into themselves, and lets `spoil` change the file after cluster `at` was written.
    fn followed(proof: Proof, clusters: u64, spoil: impl Fn(&File, u64) + Sync) -> Result<()> {
        let file = tempfile::tempfile().unwrap();
        let pieces = (0..clusters).map(|cluster| {
            let place = Place::Plain(cluster * CLUSTER_BYTES);
            Ok(Piece { cluster, place })
        });
        let how = How {
            watch: &Watch::UNWATCHED,
            idle: false,
            clusters,
            tend: &|| Ok(()),
        };
        let follower = Follower::new(&file, proof);
        let write = |work: &Work<_>| {
            while let Some(batch) = work.next()? {
                let mut all = Vec::with_capacity(BATCH);
                for piece in &batch.pieces {
                    let length = usize::try_from(CLUSTER_BYTES).unwrap() - 1000;
                    let bytes = vec![piece.cluster.to_le_bytes()[0]; length];
                    let start = piece.place.range().start;
                    file.write_all_at(&bytes, start).unwrap();
                    spoil(&file, piece.cluster);
                    all.push(Stored {
                        bytes: start..start + length as u64,
                        hash: (proof == Proof::ReadBack).then(|| blake3::hash(&bytes)),
                    });
                }
                follower.written(batch.number, all, work);
            }
            Ok(())
        };
        share_with(pieces, how, write, &[&|work| follower.follow(work)])
    }

    #[test]
    fn what_the_disk_has_otherwise_than_it_was_written_is_found_wherever_it_is() {
        for clusters in [0, 1, 7, 8, 129, 1000] {
            followed(Proof::ReadBack, clusters, |_file, _cluster| {}).unwrap();
        }
        for spoiled in [0, 8, 500, 999] {
            let spoil = |file: &File, cluster: u64| {
                if cluster == spoiled {
                    let place = (cluster + 1) * CLUSTER_BYTES - 1001;
                    file.write_all_at(&[!cluster.to_le_bytes()[0]], place)
                        .unwrap();
                }
            };
            let error = followed(Proof::ReadBack, 1000, spoil).expect_err("spoiled");
            assert_eq!(error.kind(), ErrorKind::Io);
            let place = format!("at byte {} differs", spoiled * CLUSTER_BYTES);
            assert!(error.to_string().contains(&place), "{error}");
            // Whoever does not want it read back is not told.
            followed(Proof::Decoded, 1000, spoil).unwrap();
        }
    }

    #[test]
    fn a_read_past_the_page_cache_ends_where_the_file_does() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 5000], 0).unwrap();
        file.sync_all().unwrap();
        let mut reader = Reader::new(&file);
        for direct in [true, false] {
            reader.memory.get(3 * ALIGNED).fill(9);
            reader.read(&(0..3 * ALIGNED)).unwrap();
            let bytes = reader.memory.get(3 * ALIGNED);
            assert!(bytes[..5000].iter().all(|byte| *byte == 7), "{direct}");
            assert!(bytes[5000..].iter().all(|byte| *byte == 0), "{direct}");
            reader.direct = None;
        }
    }
}

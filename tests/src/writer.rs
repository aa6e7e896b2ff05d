//! A writer that numbers its blocks, and the proof that an image holds an exact prefix of what it wrote.
//!
//! Four threads share a device. Each owns a stretch of it and writes 4 KiB blocks with direct I/O, one at a time: block
//! number n is issued only when n - 1 was acknowledged. Numbers go round the stretch in scattered order, so that later
//! ones overwrite earlier ones. An image of one instant then holds, per thread, everything up to some number and nothing
//! after it: the block under a place must carry exactly the newest number that belongs there. A torn cut shows as a block
//! that is too old or too new for the rest, a torn block by its digest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads of one writer.
pub const THREADS: usize = 4;
/// Bytes of one block.
pub const BLOCK: usize = 4096;
/// Blocks are scattered by this step; a prime, so that it meets every place of a stretch that is no multiple of it.
const STEP: u64 = 7919;
const MAGIC: &[u8; 8] = b"numbered";

/// One number per thread.
pub type Numbers = [u64; THREADS];

/// Where the threads write.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Blocks that belong to one thread.
    blocks: u64,
}

impl Layout {
    /// Shares `bytes` among the threads.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let mut blocks = bytes / BLOCK as u64 / THREADS as u64;
        if blocks.is_multiple_of(STEP) {
            blocks -= 1;
        }
        assert!(blocks > 0, "too small for four threads");
        Self { blocks }
    }

    /// Where thread `thread` puts its block `number`; numbers begin with 1.
    fn offset(self, thread: usize, number: u64) -> u64 {
        let place = (number - 1) % self.blocks * STEP % self.blocks;
        (thread as u64 * self.blocks + place) * BLOCK as u64
    }

    /// The newest number up to `last` that belongs to the same place as `number`, which is one of the first round.
    fn newest(self, number: u64, last: u64) -> u64 {
        if number > last {
            0
        } else {
            number + (last - number) / self.blocks * self.blocks
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    pause: AtomicBool,
    paused: [AtomicBool; THREADS],
    /// The first thread may write one block although it pauses.
    one: AtomicBool,
    issued: [AtomicU64; THREADS],
    acknowledged: [AtomicU64; THREADS],
    longest_us: AtomicU64,
}

/// A writer at work.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Writer {
    /// Starts to write to the file or device at `path`, within its first `bytes`.
    #[track_caller]
    #[must_use]
    pub fn start(path: &Path, bytes: u64) -> Self {
        let layout = Layout::new(bytes);
        let shared = Arc::new(Shared::default());
        let threads = (0..THREADS)
            .map(|thread| {
                let file = open_direct(path)
                    .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || write_on(&file, layout, thread, &shared))
            })
            .collect();
        Self {
            layout,
            shared,
            threads,
        }
    }

    /// Where it writes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Numbers that are on the device for certain.
    #[must_use]
    pub fn acknowledged(&self) -> Numbers {
        std::array::from_fn(|at| self.shared.acknowledged[at].load(Ordering::SeqCst))
    }

    /// Numbers that may be on the device.
    #[must_use]
    pub fn issued(&self) -> Numbers {
        std::array::from_fn(|at| self.shared.issued[at].load(Ordering::SeqCst))
    }

    /// Whether every thread is still writing.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Waits until every thread has had `more` further blocks acknowledged.
    #[track_caller]
    pub fn advance(&self, more: u64) {
        let before = self.acknowledged();
        crate::wait::until("the writer goes on", Duration::from_secs(60), || {
            let now = self.acknowledged();
            assert!(self.is_writing(), "the writer has stopped at {now:?}");
            before
                .iter()
                .zip(now)
                .all(|(before, now)| now >= before + more)
        });
    }

    /// Lets it write no further block, and waits until the last ones are acknowledged.
    #[track_caller]
    pub fn pause(&self) {
        self.shared.pause.store(true, Ordering::SeqCst);
        crate::wait::until("the writer pauses", Duration::from_secs(60), || {
            assert!(self.is_writing(), "the writer has stopped");
            let paused = &self.shared.paused;
            paused.iter().all(|paused| paused.load(Ordering::SeqCst))
        });
    }

    /// Lets it write exactly one block while it pauses, and waits until that is acknowledged.
    #[track_caller]
    pub fn write_one(&self) {
        let before = self.acknowledged()[0];
        self.shared.one.store(true, Ordering::SeqCst);
        if let Some(first) = self.threads.first() {
            first.thread().unpark();
        }
        crate::wait::until("one block is written", Duration::from_secs(60), || {
            self.acknowledged()[0] > before
        });
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.shared.pause.store(false, Ordering::SeqCst);
        for thread in &self.threads {
            thread.thread().unpark();
        }
    }

    /// The longest time one block took, since the start or the last call of this.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        Duration::from_micros(self.shared.longest_us.swap(0, Ordering::SeqCst))
    }

    /// Stops it; what was acknowledged. Every write must have succeeded.
    #[track_caller]
    pub fn stop(self) -> Numbers {
        match self.stop_with_result() {
            (numbers, Ok(())) => numbers,
            (numbers, Err(error)) => panic!("the writer failed after {numbers:?}: {error}"),
        }
    }

    /// Stops it; what was acknowledged, and the first error.
    pub fn stop_with_result(mut self) -> (Numbers, io::Result<()>) {
        let result = self.end();
        (self.acknowledged(), result)
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let results: Vec<io::Result<()>> = self
            .threads
            .drain(..)
            .map(|thread| thread.join().expect("a writing thread does not panic"))
            .collect();
        results.into_iter().collect()
    }
}

/// A test that fails must not leave a writer that keeps its device open.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the writer failed: {error}");
        }
    }
}

fn write_on(file: &File, layout: Layout, thread: usize, shared: &Shared) -> io::Result<()> {
    let mut buffer = Aligned::new();
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let one = thread == 0 && shared.one.swap(false, Ordering::SeqCst);
        if shared.pause.load(Ordering::SeqCst) && !one {
            shared.paused[thread].store(true, Ordering::SeqCst);
            std::thread::park_timeout(Duration::from_millis(10));
            continue;
        }
        shared.paused[thread].store(false, Ordering::SeqCst);
        number += 1;
        fill(buffer.bytes(), thread, number);
        shared.issued[thread].store(number, Ordering::SeqCst);
        let start = Instant::now();
        file.write_all_at(buffer.bytes(), layout.offset(thread, number))?;
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let _before = shared.longest_us.fetch_max(took, Ordering::SeqCst);
        shared.acknowledged[thread].store(number, Ordering::SeqCst);
    }
    Ok(())
}

/// Proves that the file or device at `path` is an exact prefix, per thread, of what a writer with `layout` wrote, and
/// returns the last number of each thread.
///
/// # Errors
/// A sentence that names the first block that does not fit.
pub fn verify(path: &Path, layout: Layout) -> Result<Numbers, String> {
    let file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let mut last = [0; THREADS];
    for (thread, last) in last.iter_mut().enumerate() {
        let found = read_thread(&file, layout, thread)?;
        *last = found.iter().copied().max().unwrap_or(0);
        for (first, &number) in (1..).zip(&found) {
            let wanted = layout.newest(first, *last);
            if number != wanted {
                return Err(format!(
                    "torn: thread {thread} reached {last}, so the block at {} must be number {wanted}, but is {number}",
                    layout.offset(thread, first)
                ));
            }
        }
    }
    Ok(last)
}

/// The same, and that the image was made between two moments: everything acknowledged before is in it, nothing that was
/// issued later.
///
/// # Errors
/// A sentence that says what is missing or too new.
pub fn verify_between(
    path: &Path,
    layout: Layout,
    acknowledged_before: Numbers,
    issued_after: Numbers,
) -> Result<Numbers, String> {
    let found = verify(path, layout)?;
    for thread in 0..THREADS {
        let (least, most) = (acknowledged_before[thread], issued_after[thread]);
        if !(least..=most).contains(&found[thread]) {
            return Err(format!(
                "thread {thread}: the image holds {} but must hold between {least} and {most}",
                found[thread]
            ));
        }
    }
    Ok(found)
}

/// The number in each place, in the order in which the first round wrote them.
fn read_thread(file: &File, layout: Layout, thread: usize) -> Result<Vec<u64>, String> {
    let mut block = vec![0; BLOCK];
    let mut numbers = Vec::new();
    for first in 1..=layout.blocks {
        let offset = layout.offset(thread, first);
        file.read_exact_at(&mut block, offset)
            .map_err(|error| format!("read at {offset}: {error}"))?;
        numbers.push(number_in(&block, thread).map_err(|why| format!("block at {offset}: {why}"))?);
    }
    Ok(numbers)
}

fn fill(block: &mut [u8], thread: usize, number: u64) {
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&(thread as u64).to_le_bytes());
    block[16..24].copy_from_slice(&number.to_le_bytes());
    // Eight bytes that follow from the number, over and over: each sector of the block can be told from any other's.
    let word = (number ^ ((thread as u64) << 56))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes();
    for chunk in block[24..].chunks_mut(8) {
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// The number in a block that `thread` wrote; 0 when nothing was written there.
fn number_in(block: &[u8], thread: usize) -> Result<u64, String> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let number = block[16..24].try_into().map(u64::from_le_bytes);
    let number = number.map_err(|error| error.to_string())?;
    let mut wanted = vec![0; BLOCK];
    fill(&mut wanted, thread, number);
    if block == wanted {
        Ok(number)
    } else {
        Err(format!("torn or foreign (says it is number {number})"))
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(path)
}

/// A block-sized buffer at an address that direct I/O accepts.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let memory = vec![0; 2 * BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layout: Layout, last: Numbers) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = layout.blocks * (THREADS * BLOCK) as u64;
        file.as_file().set_len(bytes).unwrap();
        let mut block = vec![0; BLOCK];
        for (thread, last) in last.into_iter().enumerate() {
            for number in 1..=last {
                fill(&mut block, thread, number);
                let offset = layout.offset(thread, number);
                file.as_file().write_all_at(&block, offset).unwrap();
            }
        }
        file
    }

    #[test]
    fn a_prefix_is_accepted_in_the_first_round_and_later() {
        let layout = Layout::new((4 * 10 * BLOCK) as u64);
        for last in [[0, 1, 9, 10], [11, 20, 21, 37]] {
            let file = image(layout, last);
            assert_eq!(verify(file.path(), layout), Ok(last));
        }
    }

    #[test]
    fn a_missing_a_late_and_a_half_written_block_are_found() {
        let layout = Layout::new((4 * 10 * BLOCK) as u64);
        let mut block = vec![0; BLOCK];
        for (number, in_place_of) in [(4, 14), (26, 16)] {
            let file = image(layout, [17, 3, 3, 3]);
            fill(&mut block, 0, number);
            let offset = layout.offset(0, in_place_of);
            file.as_file().write_all_at(&block, offset).unwrap();
            assert!(verify(file.path(), layout).unwrap_err().starts_with("torn"));
        }
        let file = image(layout, [17, 3, 3, 3]);
        let half = layout.offset(0, 5) + 512;
        file.as_file().write_all_at(&[0; 512], half).unwrap();
        assert!(
            verify(file.path(), layout)
                .unwrap_err()
                .contains("torn or foreign")
        );
    }

    #[test]
    fn a_writer_that_pauses_writes_one_block_when_it_is_told_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let writer = Writer::start(file.path(), 1 << 20);
        writer.advance(3);
        writer.pause();
        let mut expected = writer.acknowledged();
        for _each in 0..3 {
            writer.write_one();
            expected[0] += 1;
            assert_eq!(writer.issued(), expected);
        }
        let layout = writer.layout();
        let _last = writer.stop();
        assert_eq!(verify(file.path(), layout), Ok(expected));
    }

    #[test]
    fn a_real_writer_leaves_what_it_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = 1 << 20;
        file.as_file().set_len(bytes).unwrap();
        let writer = Writer::start(file.path(), bytes);
        writer.advance(100);
        let layout = writer.layout();
        let last = writer.stop();
        assert_eq!(verify(file.path(), layout), Ok(last));
    }
}

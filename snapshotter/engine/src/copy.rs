//! Copies of data where the filesystem cannot share blocks: holes stay holes, memory stays bounded.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, copy_file_range, posix_fadvise};
use pool::{Context, Error, ErrorKind, Result};

use crate::data_map::DataRuns;

/// How much is copied between two looks at the clock.
const CHUNK_BYTES: u64 = 8 << 20;
/// The buffer where the kernel cannot copy by itself.
const BUFFER_BYTES: usize = 1 << 20;

/// What a copy has to look out for, before each 8 MiB and once more at its end.
pub struct Watch<'a> {
    /// The copy is worthless after this: the filesystem in the volume is frozen only until then.
    pub deadline: Option<Instant>,
    /// Answers false once the copy is not wanted any more.
    pub keep_going: &'a dyn Fn() -> bool,
    /// Hears how many bytes of the disk are done, holes included, and how many there are.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Watch<'_> {
    /// No deadline, never stopped, nobody listening.
    pub const UNWATCHED: Self = Watch {
        deadline: None,
        keep_going: &|| true,
        progress: &|_done, _total| {},
    };

    /// Whether the copy is still wanted and worth something.
    pub(crate) fn check(&self) -> Result<()> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Error::new(
                ErrorKind::Precondition,
                "the copy did not finish while the volume could be held still; nothing was kept of it. Unpublish the \
                 volume (stop the pod that uses it) and call again, or keep the pool on XFS or Btrfs, where a snapshot \
                 copies nothing",
            ));
        }
        if (self.keep_going)() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Uncertain,
            "the copy was stopped before it was complete; nothing was kept of it. Call again",
        ))
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A part of a file that is to be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Makes sure that reading `source` gives what was last written to it, also by a loop device with direct I/O.
///
/// Such a loop device writes past the page cache of the file: the kernel throws away the cached pages of each range it
/// writes so, but only tries to, and a page that was read in at the same moment may survive. A loop device without direct
/// I/O writes into those very pages. `fdatasync` and then dropping every (now clean) page is right for both: afterwards
/// reads come from the disk, and nobody writes while we copy, which the caller has made sure of.
pub(crate) fn forget_cached(source: &File) -> Result<()> {
    source.sync_data().during("sync the source image")?;
    posix_fadvise(source, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .during("drop cached pages of the source image")
}

/// Copies the data of `source` to `target` from byte `target_offset`. Where the source has holes nothing is written, so
/// the target has to read as zero there already. Nothing is synced.
///
/// # Errors
/// `Precondition` past the deadline and `Uncertain` when told to stop, see [`Watch`]; `NoSpace`; `Io`, also when the
/// source ends early.
pub(crate) fn copy_data(
    source: Part<'_>,
    target: &File,
    target_offset: u64,
    watch: &Watch<'_>,
) -> Result<()> {
    let mut copier = Copier {
        source: source.file,
        target,
        buffer: None,
    };
    for run in DataRuns::new(source.file, source.offset, source.length) {
        let run = run?;
        let mut done = run.start;
        while done < run.end {
            watch.check()?;
            let length = CHUNK_BYTES.min(run.end - done);
            copier.copy(source.offset + done, target_offset + done, length)?;
            done += length;
            (watch.progress)(done, source.length);
        }
    }
    watch.check()?;
    (watch.progress)(source.length, source.length);
    Ok(())
}

struct Copier<'a> {
    source: &'a File,
    target: &'a File,
    /// There once the kernel said that it cannot copy between these two files.
    buffer: Option<Vec<u8>>,
}

impl Copier<'_> {
    fn copy(&mut self, mut from: u64, mut to: u64, mut length: u64) -> Result<()> {
        while length > 0 {
            let copied = match &mut self.buffer {
                Some(buffer) => copy_through(buffer, self.source, from, self.target, to, length)?,
                None => match copy_in_kernel(self.source, from, self.target, to, length)? {
                    Some(copied) => copied,
                    None => {
                        self.buffer = Some(vec![0; BUFFER_BYTES]);
                        continue;
                    }
                },
            };
            from += copied;
            to += copied;
            length -= copied;
        }
        Ok(())
    }
}

/// Copies some bytes; `None` where the kernel cannot. A copy of nothing is the same: reading tells why.
fn copy_in_kernel(
    source: &File,
    from: u64,
    target: &File,
    to: u64,
    length: u64,
) -> Result<Option<u64>> {
    let offset = |bytes: u64| {
        i64::try_from(bytes)
            .map_err(|_too_large| Error::io("copy the image", Errno::EOVERFLOW.into()))
    };
    let (mut from, mut to) = (offset(from)?, offset(to)?);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    loop {
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), length) {
            Ok(copied) => return Ok((copied > 0).then_some(copied as u64)),
            Err(Errno::EINTR) => {}
            Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
                return Ok(None);
            }
            Err(errno) => return Err(errno).during("copy the image"),
        }
    }
}

fn copy_through(
    buffer: &mut [u8],
    source: &File,
    from: u64,
    target: &File,
    to: u64,
    length: u64,
) -> Result<u64> {
    let wanted = usize::try_from(length).map_or(buffer.len(), |length| length.min(buffer.len()));
    let bytes = &mut buffer[..wanted];
    source
        .read_exact_at(bytes, from)
        .context_with(|| format!("read the image at byte {from}"))?;
    target
        .write_all_at(bytes, to)
        .context_with(|| format!("write the copy at byte {to}"))?;
    Ok(wanted as u64)
}

//! Writing out what was written, behind those who write.
//!
//! What stays in the page cache is written out by the kernel's own threads, which do not yield to anybody: so whoever yields has to
//! write it out himself. And what is on the disk makes room in the page cache again, which is the guests'.

use std::fs::File;
use std::sync::Mutex;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::{Context, Result};

use super::crew::MOST_WORKERS;
use super::pieces::BATCH;
use crate::layout::CLUSTER_BYTES;

/// So much is written out at once.
const CHUNK: u64 = 8 << 20;
/// So much may have a place and not be written yet: a batch of each worker.
const IN_HAND: u64 = (MOST_WORKERS * BATCH) as u64 * CLUSTER_BYTES;

/// See the module.
pub(crate) struct Behind<'f> {
    target: &'f File,
    /// Whether each chunk is waited for, while the next one is being written out, and then leaves the page cache.
    waits: bool,
    /// All before this byte is being written out.
    begun: Mutex<u64>,
}

impl<'f> Behind<'f> {
    pub(crate) fn new(target: &'f File, waits: bool) -> Self {
        Self {
            target,
            waits,
            begun: Mutex::default(),
        }
    }

    /// Writes out what lies far enough before byte `written`, unless another one is at it.
    ///
    /// # Errors
    /// The kernel's: what could not be written is lost, and nobody is told a second time.
    pub(crate) fn follow(&self, written: u64) -> Result<()> {
        let Ok(mut begun) = self.begun.try_lock() else {
            return Ok(());
        };
        while *begun + CHUNK + IN_HAND <= written {
            pool::sys::begin_write_out(self.target, *begun, CHUNK)
                .during("write out the packed image")?;
            if self.waits
                && let Some(before) = begun.checked_sub(CHUNK)
            {
                self.wait_for(before)?;
            }
            *begun += CHUNK;
        }
        Ok(())
    }

    fn wait_for(&self, chunk: u64) -> Result<()> {
        pool::sys::write_out(self.target, chunk, CHUNK).during("write out the packed image")?;
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        if let Err(errno) = posix_fadvise(self.target, number(chunk), number(CHUNK), advice) {
            tracing::debug!(%errno, "advice on cached pages of a packed image was refused");
        }
        Ok(())
    }
}

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

/// So much is written out at once, and waited for.
const CHUNK: u64 = 32 << 20;
/// So much may have a place and not be written yet: a batch of each worker.
const IN_HAND: u64 = (MOST_WORKERS * BATCH) as u64 * CLUSTER_BYTES;

/// See the module.
pub(crate) struct Behind<'f> {
    target: &'f File,
    /// All before this byte is on the disk.
    done: Mutex<u64>,
}

impl<'f> Behind<'f> {
    pub(crate) fn new(target: &'f File) -> Self {
        Self {
            target,
            done: Mutex::default(),
        }
    }

    /// Writes out what lies far enough before byte `written`, unless another one is at it.
    ///
    /// # Errors
    /// The kernel's: what could not be written is lost, and nobody is told a second time.
    pub(crate) fn follow(&self, written: u64) -> Result<()> {
        let Ok(mut done) = self.done.try_lock() else {
            return Ok(());
        };
        while *done + CHUNK + IN_HAND <= written {
            pool::sys::write_out(self.target, *done, CHUNK).during("write out the packed image")?;
            let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            if let Err(errno) = posix_fadvise(self.target, number(*done), number(CHUNK), advice) {
                tracing::debug!(%errno, "advice on cached pages of a packed image was refused");
            }
            *done += CHUNK;
        }
        Ok(())
    }
}

//! Beginning to write out what was written, behind those who write: so that a sync has little left to do.

use std::fs::File;
use std::sync::Mutex;

use pool::{Context, Result};

use super::crew::MOST_WORKERS;
use super::pieces::BATCH;
use crate::layout::CLUSTER_BYTES;

/// So much is written out at once.
const CHUNK: u64 = 8 << 20;
/// So much may have a place and not be written yet: a batch of each worker. Where it is more, the sync writes the rest.
const IN_HAND: u64 = (MOST_WORKERS * BATCH) as u64 * CLUSTER_BYTES;

/// See the module.
pub(crate) struct Behind<'f> {
    target: &'f File,
    /// All before this byte is being written out.
    begun: Mutex<u64>,
}

impl<'f> Behind<'f> {
    pub(crate) fn new(target: &'f File) -> Self {
        Self {
            target,
            begun: Mutex::default(),
        }
    }

    /// Begins to write out what lies far enough before byte `written`, unless another one is at it.
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
            *begun += CHUNK;
        }
        Ok(())
    }
}

//! Freeing what was deleted.

use std::fs::File;
use std::sync::PoisonError;

use super::{Pool, object};
use crate::durable::Folder;
use crate::error::{Context, Result};
use crate::fault::{Step, reached};
use crate::held;
use crate::layout::{DISK_IMAGE, SNAPSHOT_IMAGE};
use crate::size::GIB;

/// Freed in one go: a filesystem blocks others while it frees, and a terabyte in one call is felt by every guest.
const SLICE_BYTES: u64 = GIB;

impl Pool {
    /// Frees everything in `trash/`. Images are cut in slices before they are unlinked, so that others get their turn
    /// and the space is free when this returns (an unlinked file is freed later by XFS).
    ///
    /// # Errors
    /// The kernel's. What could not be freed stays in `trash/` and is tried again with the next call.
    pub fn empty_trash(&self) -> Result<()> {
        let _one_at_a_time = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.layout.trash.names()?;
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            free(&self.layout.trash, name)?;
        }
        self.layout.trash.sync()
    }

    /// How many deleted objects are not freed yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn trash_count(&self) -> Result<usize> {
        Ok(self.layout.trash.names()?.len())
    }
}

fn free(trash: &Folder, name: &str) -> Result<()> {
    let folder = trash.folder(name)?;
    for image in [DISK_IMAGE, SNAPSHOT_IMAGE] {
        if folder.stat(image)?.is_some() {
            match held::alone(folder.file(image, true)?)? {
                Some(unused) => shrink(&unused)?,
                // Somebody restores or exports it still: he keeps what he has open, and it is freed when he is done.
                None => tracing::debug!(name, "a deleted image is still read"),
            }
            folder.remove_file(image)?;
        }
    }
    reached(Step::TrashFilesRemoved)?;
    object::remove_object(trash, &folder, name, DISK_IMAGE)
        .context_with(|| format!("remove trash/{name}"))?;
    reached(Step::TrashFolderRemoved)
}

fn shrink(image: &File) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    loop {
        let now = image.metadata().during("look at a deleted image")?;
        if now.blocks() == 0 || now.len() == 0 {
            return Ok(());
        }
        let left = now.len().saturating_sub(SLICE_BYTES);
        image
            .set_len(left)
            .during("free a slice of a deleted image")?;
        reached(Step::TrashSliceFreed)?;
    }
}

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
    /// Frees everything in `trash/` that nobody reads any more. Images are cut in slices before they are unlinked, so that others
    /// get their turn and the space is free when this returns (an unlinked file is freed later by XFS).
    ///
    /// An image that somebody still reads stays, whole and counted ([`crate::capacity`]): its blocks may be those of a volume that
    /// is rewritten, and a file without a name could not be found to be counted. What is not ours in the folder of a deleted
    /// object stays too, and the folder with it; our files go from there all the same. One that cannot be freed keeps no other
    /// waiting.
    ///
    /// # Errors
    /// The first that was met, after all others were freed; a person hears of each once, in the log. What could not be freed stays
    /// in `trash/` and is tried again with the next call.
    pub fn empty_trash(&self) -> Result<()> {
        let mut known = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.layout.trash.names()?;
        known.retain(|name| names.contains(name));
        if names.is_empty() {
            return Ok(());
        }
        let mut first = Ok(());
        for name in names {
            if let Err(error) = free(&self.layout.trash, &name) {
                if known.insert(name) {
                    tracing::warn!(%error, "something in the trash cannot be removed; look what is in there");
                }
                first = first.and(Err(error));
            }
        }
        self.layout.trash.sync()?;
        first
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
    let freed = trash
        .folder(name)
        .and_then(|folder| free_folder(trash, &folder, name));
    freed.context_with(|| format!("remove trash/{name}"))
}

fn free_folder(trash: &Folder, folder: &Folder, name: &str) -> Result<()> {
    for image in [DISK_IMAGE, SNAPSHOT_IMAGE] {
        if folder.stat(image)?.is_some() {
            match held::alone(folder.file(image, true)?)? {
                Some(unused) => shrink(&unused)?,
                // Somebody restores or exports it still: it is freed when he is done.
                None => {
                    tracing::debug!(name, "a deleted image is still read");
                    return Ok(());
                }
            }
            folder.remove_file(image)?;
        }
    }
    reached(Step::TrashFilesRemoved)?;
    object::remove_object(trash, folder, name, DISK_IMAGE)?;
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

//! Snapshots that somebody reads.
//!
//! A snapshot's image and record can be replaced, and it can be deleted, while it is read. Who reads one opens both through the
//! same folder, so that they belong to each other, and holds a shared lock (`flock`) on the image; what is in the trash is cut
//! short and removed only where nobody holds one. So readers, also in other processes, see one image from its first byte to its
//! last; and it can still be counted, as what it keeps from others.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::durable::Folder;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::SnapshotId;
use crate::index::read_snapshot_in;
use crate::layout::{Layout, SNAPSHOT_IMAGE};
use crate::record::SnapshotRecord;

/// A snapshot's record with its image, opened for reading.
#[derive(Debug)]
pub struct OpenSnapshot {
    /// The record.
    pub record: SnapshotRecord,
    image: Flock<File>,
    folder: Folder,
}

impl OpenSnapshot {
    /// The image, read-only.
    #[must_use]
    pub fn image(&self) -> &File {
        &self.image
    }
}

/// Opens a snapshot for reading.
///
/// # Errors
/// `NotFound`; `Corrupt` when the record cannot be trusted, or its image is missing or no regular file.
pub(crate) fn open_snapshot(layout: &Layout, id: &SnapshotId) -> Result<OpenSnapshot> {
    /// A snapshot is replaced once in its life, and deleted once.
    const TRIES: usize = 4;
    for _replaced_or_deleted in 0..TRIES {
        let folder = layout
            .snapshots
            .folder(id.as_str())
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => missing(id),
                _ => error,
            })?;
        let record = read_snapshot_in(&folder, id)
            .context_with(|| format!("the snapshot {id} is kept but not used"));
        let image = folder.file(SNAPSHOT_IMAGE, false);
        let opened = record.and_then(|record| Ok((record, image?)));
        let (record, image) = match opened {
            Ok(opened) => opened,
            // Its folder was emptied in the trash meanwhile.
            Err(_) if is_elsewhere(layout, id, &folder)? => continue,
            Err(error) => return Err(incomplete(id, error)),
        };
        match Flock::lock(image, FlockArg::LockSharedNonblock) {
            // What is in its place now was not freed before, and is not freed from now on.
            Ok(image) if !is_elsewhere(layout, id, &folder)? => {
                return Ok(OpenSnapshot {
                    record,
                    image,
                    folder,
                });
            }
            // It is in the trash, and freed or being freed.
            Ok(_) | Err((_, Errno::EWOULDBLOCK)) => {}
            Err((_, errno)) => return Err(Error::io("hold a snapshot's image", errno.into())),
        }
    }
    Err(missing(id))
}

/// Whether what was opened is still the snapshot: neither deleted nor replaced.
pub(crate) fn is_current(layout: &Layout, opened: &OpenSnapshot) -> bool {
    is_elsewhere(layout, &opened.record.id, &opened.folder).is_ok_and(|elsewhere| !elsewhere)
}

/// The file, if nobody reads it; from then on nobody does.
///
/// # Errors
/// The kernel's.
pub(crate) fn alone(image: File) -> Result<Option<Flock<File>>> {
    match Flock::lock(image, FlockArg::LockExclusiveNonblock) {
        Ok(image) => Ok(Some(image)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::io("look who reads a deleted image", errno.into())),
    }
}

/// Whether `folder` is not the snapshot's any more.
fn is_elsewhere(layout: &Layout, id: &SnapshotId, folder: &Folder) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let opened = folder.as_file().metadata().during("look at a folder")?;
    let there = layout.snapshots.stat(id.as_str())?;
    Ok(there.is_none_or(|there| there.st_ino != opened.ino()))
}

fn missing(id: &SnapshotId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no snapshot {id}"))
}

fn incomplete(id: &SnapshotId, error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::Corrupt,
            format!(
                "the image {SNAPSHOT_IMAGE} of {id} is missing though its record is there; it was removed behind our back and is never replaced by an empty one"
            ),
        ),
        _ => error,
    }
}

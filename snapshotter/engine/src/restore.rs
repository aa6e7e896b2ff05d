//! A snapshot back into a raw image, and one raw image into another.

use std::fs::File;
use std::time::{Duration, Instant};

use pool::record::SnapshotRecord;
use pool::{Context, Error, ErrorKind, Result};

use crate::capture::{cannot_share, check_source, is_unshareable};
use crate::copy::{Part, Watch, copy_data, forget_cached};
use crate::digest::metadata_digest;
use crate::layout::Layout;
use crate::packed::packed;
use crate::unpack::unpack;
use crate::verify::first_problem;

/// Fills `target` with the disk of a snapshot: one ioctl where the filesystem can share blocks, else a sparse copy. A packed
/// snapshot is decoded, on all processors.
///
/// `target` is a new file that reads as zero (holes, or preallocated) and already has its size: that of the disk or more.
/// What is beyond the disk stays zero. Nothing is durable before the caller syncs `target`. The snapshot's metadata is checked against the record
/// first; its data is what the filesystem says it is.
///
/// # Errors
/// `Corrupt` when the image is not what the record says, with the place in the file where that can be told: the target
/// is then untouched. `Internal` for a target that is too small; those of [`Watch`] while copying; `NoSpace`; `Io`.
/// After an error the target is worth nothing.
pub fn restore(
    image: &File,
    record: &SnapshotRecord,
    target: &File,
    watch: &Watch<'_>,
) -> Result<()> {
    if let Some(packed) = packed(record) {
        let size = check_target(target, record.virtual_bytes)?;
        unpack(image, record, packed, target, watch)?;
        return check_size_kept(target, size);
    }
    let layout = checked_layout(image, record)?;
    let part = Part {
        file: image,
        offset: layout.data_offset(),
        length: layout.virtual_bytes(),
    };
    let size = check_target(target, part.length)?;
    match pool::sys::clone_range(image, part.offset, part.length, target, 0) {
        Ok(()) => (watch.progress)(part.length, part.length),
        Err(error) if is_unshareable(&error) => {
            tracing::debug!(%error, "the snapshot is copied: its blocks cannot be shared");
            copy_data(part, target, 0, watch).during("restore the snapshot")?;
        }
        Err(error) => return Err(Error::io("restore the snapshot", error)),
    }
    check_size_kept(target, size)
}

/// Makes `target` share the first `length` bytes of the raw image `source`: one ioctl, atomic against everything that
/// writes to `source`, which waits meanwhile for the time returned. `target` is as for [`restore`]; nothing is synced.
///
/// # Errors
/// `Precondition` where the filesystem cannot share blocks between the two files (then [`copy_raw`] is the way);
/// `Corrupt` when the source is shorter than `length`; `Internal` for a target that is too small; `NoSpace`; `Io`.
pub fn clone_raw(source: &File, length: u64, target: &File) -> Result<Duration> {
    check_source(source, length)?;
    let size = check_target(target, length)?;
    let start = Instant::now();
    let cloned = pool::sys::clone_range(source, 0, length, target, 0);
    let stall = start.elapsed();
    cloned.map_err(cannot_share).during("clone the volume")?;
    check_size_kept(target, size)?;
    Ok(stall)
}

/// Copies the data in the first `length` bytes of the raw image `source` to `target`, for filesystems that cannot share
/// blocks. As for [`Cut::copy`](crate::Cut::copy), nothing may write to `source` meanwhile. `target` is as for
/// [`restore`]; nothing is synced.
///
/// # Errors
/// Those of [`Cut::copy`](crate::Cut::copy); `Internal` for a target that is too small.
pub fn copy_raw(source: &File, length: u64, target: &File, watch: &Watch<'_>) -> Result<()> {
    check_source(source, length)?;
    let size = check_target(target, length)?;
    forget_cached(source)?;
    let part = Part {
        file: source,
        offset: 0,
        length,
    };
    copy_data(part, target, 0, watch).during("copy the volume")?;
    check_size_kept(target, size)
}

/// The layout of a recorded snapshot whose image is the one that was recorded.
pub(crate) fn checked_layout(image: &File, record: &SnapshotRecord) -> Result<Layout> {
    let layout = recorded_layout(record)?;
    check_digest(image, record, &layout)?;
    Ok(layout)
}

/// The layout of a recorded snapshot.
pub(crate) fn recorded_layout(record: &SnapshotRecord) -> Result<Layout> {
    let layout = Layout::for_virtual_size(record.virtual_bytes)
        .map_err(|error| error.with_kind(ErrorKind::Corrupt))
        .context_with(|| format!("read the record of {}", record.id))?;
    if layout.data_offset() == record.data_offset {
        return Ok(layout);
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the record of {} says that the disk starts at byte {} of the image, where a disk of {} bytes starts at \
             byte {}",
            record.id,
            record.data_offset,
            record.virtual_bytes,
            layout.data_offset()
        ),
    ))
}

fn check_digest(image: &File, record: &SnapshotRecord, layout: &Layout) -> Result<()> {
    let found = metadata_digest(image, layout)
        .context_with(|| format!("check the image of {}", record.id))?;
    if found == record.metadata_digest {
        return Ok(());
    }
    let place = match first_problem(image, layout) {
        Ok(Some(problem)) => format!("first at {problem}"),
        // Such an image is in order by itself, and another one than was recorded.
        Ok(None) => "but is in order by itself: it is the image of another snapshot".to_owned(),
        Err(error) => format!("and cannot be read: {error}"),
    };
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the metadata of the image of {} is not what was recorded (digest {found}, recorded {}), {place}. Nothing \
             was restored from it",
            record.id, record.metadata_digest
        ),
    ))
}

fn check_target(target: &File, length: u64) -> Result<u64> {
    let size = target.metadata().during("look at the new image")?.len();
    if size >= length {
        return Ok(size);
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!("the new image has {size} bytes, too few for a disk of {length}"),
    ))
}

fn check_size_kept(target: &File, size: u64) -> Result<()> {
    let found = target.metadata().during("look at the new image")?.len();
    if found == size {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Io,
        format!("the new image has {found} bytes after it was filled, and had {size} before"),
    ))
}

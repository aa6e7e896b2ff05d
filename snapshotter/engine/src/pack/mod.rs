//! A snapshot as a small file: clusters that are zero are dropped, the others compressed where that makes them smaller.
//!
//! ```text
//! pieces (what is allocated, where), read ahead ─> crew: each processor takes a batch, compresses it, and decodes that again
//!                                                    └─ in turn: the batch's places on the shelf ─> written, without waiting
//! caller ─> waits for the crew, and asks for room ahead of it (grant)
//! afterwards ─> the synced file is read back, and has to be what was written (proof)
//! ```
//! The same disk gives the same bytes each time, however many processors there are.

mod ahead;
mod behind;
pub(crate) mod crew;
mod effort;
mod grant;
mod packer;
pub(crate) mod pieces;
mod proof;
mod shelf;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::record::{Compression, Packed, SnapshotRecord};
use pool::{Context, Error, ErrorKind, Result};

use self::ahead::Ahead;
use self::behind::Behind;
use self::crew::{How, Turns};
use self::effort::Effort;
use self::grant::Grant;
use self::packer::{Desk, Packer, Shelves};
use self::pieces::Piece;
use self::shelf::Shelf;
use crate::compact::{Compact, count};
use crate::copy::Watch;
use crate::data_digest::Sum;
use crate::digest::{check_size, front_digest};
use crate::layout::CLUSTER_BYTES;
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::restore::checked_layout;

/// How a snapshot is packed.
#[derive(Clone, Copy)]
pub struct Pack<'a> {
    /// Clusters that become smaller by it are compressed like this; `None`: all are stored as they are.
    pub compression: Option<Compression>,
    /// What the work has to look out for.
    pub watch: &'a Watch<'a>,
    /// Asked before the file grows from so many bytes to so many, on the thread that calls.
    pub room: &'a dyn Fn(u64, u64) -> Result<()>,
    /// Only while nobody else needs the processors or the disk.
    pub idle: bool,
    /// Each stream is decoded and held against its cluster before it is written, and what is written is remembered by a digest, so that
    /// the file can be verified afterwards.
    pub proven: bool,
    /// The digest of the data is made on the way.
    pub digest: bool,
}

impl fmt::Debug for Pack<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pack")
            .field("compression", &self.compression)
            .field("idle", &self.idle)
            .field("proven", &self.proven)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// A packed image, not durable yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is durable before the file was synced"]
pub struct PackedFile {
    /// Where its data begins, in bytes: everything before is metadata.
    pub data_offset: u64,
    /// The digest of the metadata, 64 hex digits.
    pub metadata_digest: String,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// The digest of the data that was read, 64 hex digits, if it was asked for.
    pub data_digest: Option<String>,
    /// The digest of what was written of the data, if the file is to be verified.
    stored_digest: Option<String>,
}

/// Writes the disk of a snapshot into `target`, a new empty file, as a qcow2 file that is as small as it gets, on all
/// processors, of 16 at most. The snapshot's metadata is checked against the record first, and compressed data is verified. Memory:
/// some 4 MiB for each processor. Nothing is durable.
///
/// # Errors
/// `Corrupt` when the image is not what the record says; those of [`Watch`] and of `room`; `NoSpace`; `Io`. After an error the
/// target is worth nothing.
pub fn pack(
    image: &File,
    record: &SnapshotRecord,
    target: &File,
    how: &Pack<'_>,
) -> Result<PackedFile> {
    let packed_file = match packed(record) {
        None => {
            let layout = checked_layout(image, record)?;
            let compact = Compact::new(layout.virtual_bytes(), &count(image, &layout)?);
            let pieces = || pieces::of_identity(image, &layout);
            let effort = effort(image, pieces(), compact, how)?;
            let written = write(image, pieces(), target, compact, effort, how)?;
            check_size(image, &layout)?;
            describe(target, compact, written)?
        }
        Some(packed) => {
            let source = PackedImage::open(image, record, packed)?;
            let compact = Compact::new(record.virtual_bytes, &source.count()?);
            let effort = effort(image, source.pieces(), compact, how)?;
            let written = write(image, source.pieces(), target, compact, effort, how)?;
            check_packed_size(image, packed)?;
            describe(target, compact, written)?
        }
    };
    Ok(packed_file)
}

fn effort(
    image: &File,
    pieces: impl Iterator<Item = Result<Piece>> + Send,
    compact: Compact,
    how: &Pack<'_>,
) -> Result<Option<Effort>> {
    let choose = |Compression::Zstd| effort::choose(image, pieces, compact.data.count, how);
    how.compression.map(choose).transpose()
}

fn describe(target: &File, compact: Compact, written: Written) -> Result<PackedFile> {
    let data_offset = compact.data.first * CLUSTER_BYTES;
    Ok(PackedFile {
        data_offset,
        metadata_digest: front_digest(target, data_offset)?,
        file_bytes: written.file_bytes,
        data_digest: written.data_digest,
        stored_digest: written.stored_digest,
    })
}

struct Written {
    file_bytes: u64,
    data_digest: Option<String>,
    stored_digest: Option<String>,
}

impl PackedFile {
    /// What the record says of it.
    #[must_use]
    pub fn packed(&self) -> Packed {
        Packed {
            compression: Compression::Zstd,
            file_bytes: self.file_bytes,
        }
    }

    /// What a synced file has allocated, in bytes. Room that the filesystem still keeps behind the end of a file that grew, as XFS does
    /// until it is closed, is not counted.
    ///
    /// # Errors
    /// `Io`.
    pub fn charge_bytes(&self, synced: &File) -> Result<u64> {
        let found = synced.metadata().during("look at the packed image")?;
        Ok((found.blocks() * 512).min(self.file_bytes))
    }

    /// Drops the synced file from the page cache, reads it again, all of it, and holds it against what was written: the tables by
    /// their digest, and by another one, through these tables, each stream and each plain cluster. That the streams decode to what
    /// was read of the snapshot was seen before they were written. Nobody should throw the other image away before that.
    ///
    /// # Errors
    /// `Io`, also when what is read back differs; `Uncertain` when told to stop; `Internal` when it was not packed to be proven.
    pub fn verify(&self, synced: &File, virtual_bytes: u64, how: &Pack<'_>) -> Result<()> {
        let Some(expected) = &self.stored_digest else {
            let text = "a packed image is to be held against a digest that was not made";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        // Advice only: a page that is kept is compared all the same.
        let forgotten = posix_fadvise(synced, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        if let Err(errno) = forgotten {
            tracing::debug!(%errno, "advice on the cached pages of a packed image was refused");
        }
        let image = PackedImage::read_back(synced, virtual_bytes, self);
        let reading = How {
            watch: how.watch,
            idle: how.idle,
            clusters: virtual_bytes / CLUSTER_BYTES,
            tend: &|| Ok(()),
        };
        let found = image.and_then(|image| proof::stored_digest(synced, &image, reading));
        match found {
            Ok(found) if found == *expected => Ok(()),
            Ok(_other) => Err(misread("its data is not what was written")),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(misread(error)),
            Err(error) => Err(error),
        }
    }
}

fn misread(what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "the packed image reads back differently than it was written: {what}. The disk or its filesystem is not to be \
             trusted, look at the kernel's log"
        ),
    )
}

fn write<I>(
    image: &File,
    pieces: I,
    target: &File,
    compact: Compact,
    effort: Option<Effort>,
    how: &Pack<'_>,
) -> Result<Written>
where
    I: Iterator<Item = Result<Piece>> + Send,
{
    let shelves = Turns::new(Shelves {
        shelf: Shelf::new(target, compact, effort.is_some()),
        data: Sum::default(),
        stored: Sum::default(),
    });
    let behind = Behind::new(target, how.idle);
    let grant = Grant::new(compact.data.end() * CLUSTER_BYTES);
    let scarce = Cell::new(false);
    let tend = || grant.tend(how.room, &scarce);
    // Before anybody waits for it.
    tend()?;
    let packing = How {
        watch: how.watch,
        idle: how.idle,
        clusters: compact.data.count,
        tend: &tend,
    };
    let desk = Desk {
        shelves: &shelves,
        grant: &grant,
        behind: &behind,
        idle: how.idle,
        proven: how.proven,
        digest: how.digest,
    };
    crew::share(Ahead::new(image, pieces), packing, |work| {
        Packer::new(image, target, effort)?.work(work, &desk)
    })?;
    let Shelves {
        shelf,
        data,
        stored,
    } = shelves.into_inner();
    Ok(Written {
        file_bytes: shelf.finish()?,
        data_digest: how.digest.then(|| data.finish()),
        stored_digest: how.proven.then(|| stored.finish()),
    })
}

//! A snapshot as a small file: clusters that are zero are dropped, the others compressed where that makes them smaller.
//!
//! ```text
//! pieces (what is allocated, where) ─> loader: reads ahead ─> crew: each processor takes a batch, compresses it, and decodes that again
//!                                                              └─ in turn: the batch's places on the shelf ─> written, without waiting
//! follower ─> writes out what was written, and may read it back from the disk, where it has to be just that
//! caller ─> waits for them all, and asks for room ahead of them (grant)
//! afterwards ─> the tables of the synced file are read back, and have to lead to where everything was put (verify)
//! ```
//! The same disk gives the same bytes each time, however many processors there are.

mod ahead;
mod behind;
pub(crate) mod crew;
mod effort;
mod follower;
mod grant;
mod loader;
mod packer;
pub(crate) mod pieces;
mod shelf;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::Hash;
use pool::record::{Compression, Packed, SnapshotRecord};
use pool::{Context, Error, ErrorKind, Result};

use self::ahead::Ahead;
use self::behind::Behind;
use self::crew::{How, Other, Turns, Work};
use self::effort::Effort;
use self::follower::Follower;
use self::grant::Grant;
use self::loader::Loader;
use self::packer::{Desk, Packer, Shelves, Source, WriteOut};
use self::pieces::Piece;
use self::shelf::{PlacesSum, Shelf};
use crate::advice;
use crate::compact::{Compact, count};
use crate::copy::Watch;
use crate::data_digest::Sum;
use crate::digest::{check_size, front_digest};
use crate::gang;
use crate::layout::CLUSTER_BYTES;
use crate::packed::{PackedImage, check_packed_size, packed};
use crate::restore::checked_layout;

/// What of a packed image is made sure of before anybody relies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: whoever decodes it will see.
    None,
    /// Each stream is decoded again, and held against its cluster, before it is written; and the file can be verified once it is synced,
    /// see [`PackedFile::verify`].
    Decoded,
    /// The same, and everything that was written is read back from the disk.
    ReadBack,
}

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
    /// What is made sure of.
    pub proof: Proof,
    /// The digest of the data is made on the way.
    pub digest: bool,
}

impl fmt::Debug for Pack<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pack")
            .field("compression", &self.compression)
            .field("idle", &self.idle)
            .field("proof", &self.proof)
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
    /// What the tables have to say of where the data is, if it was proven.
    places: Option<Hash>,
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
            let loader = Source::Loaded(Loader::new(image));
            let written = write(&loader, pieces(), target, compact, effort, how)?;
            check_size(image, &layout)?;
            describe(target, compact, written)?
        }
        Some(packed) => {
            let source = PackedImage::open(image, record, packed)?;
            let compact = Compact::new(record.virtual_bytes, &source.count()?);
            let effort = effort(image, source.pieces(), compact, how)?;
            let pieces = Ahead::new(image, source.pieces());
            let stored = Source::Stored(image);
            let written = write(&stored, pieces, target, compact, effort, how)?;
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
        places: written.places,
    })
}

struct Written {
    file_bytes: u64,
    data_digest: Option<String>,
    places: Option<Hash>,
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

    /// What a synced file has allocated, in bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn charge_bytes(&self, synced: &File) -> Result<u64> {
        let found = synced.metadata().during("look at the packed image")?;
        Ok(found.blocks() * 512)
    }

    /// Drops the synced file from the page cache, reads its metadata again, and holds it against what was written; and the tables have to
    /// lead to where each cluster was put. That what was put there decodes to what was read of the snapshot was proven before, and, with
    /// [`Proof::ReadBack`], that the disk has it. Nobody should throw the other image away before that.
    ///
    /// # Errors
    /// `Io`, also when what is read back differs; `Uncertain` when told to stop; `Internal` when it was not packed to be proven.
    pub fn verify(&self, synced: &File, virtual_bytes: u64, how: &Pack<'_>) -> Result<()> {
        let Some(expected) = self.places else {
            let text = "a packed image is to be held against what was not proven of it";
            return Err(Error::new(ErrorKind::Internal, text));
        };
        // A page that is kept is compared all the same.
        advice::forget(synced, &advice::ALL);
        let stopped = AtomicBool::new(false);
        let verify = || match self.read_places(synced, virtual_bytes, &stopped) {
            Ok(found) if found == expected || stopped.load(Ordering::Acquire) => Ok(()),
            Ok(_other) => Err(misread("its tables do not lead to its data")),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(misread(error)),
            Err(error) => Err(error),
        };
        let priority = crew::priority(how.idle);
        gang::work(&[&verify], priority, &stopped, || how.watch.check())
    }

    fn read_places(&self, synced: &File, virtual_bytes: u64, stopped: &AtomicBool) -> Result<Hash> {
        let image = PackedImage::read_back(synced, virtual_bytes, self)?;
        let mut sum = PlacesSum::default();
        for piece in image.pieces() {
            sum.add(&piece?);
            if stopped.load(Ordering::Acquire) {
                break;
            }
        }
        advice::forget(synced, &advice::ALL);
        Ok(sum.finish())
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
    source: &Source<'_>,
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
        places: PlacesSum::default(),
    });
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
    let write_out = if how.idle || how.proof == Proof::ReadBack {
        WriteOut::Followed(Follower::new(target, how.proof))
    } else {
        WriteOut::Begun(Behind::new(target))
    };
    let desk = Desk {
        shelves: &shelves,
        grant: &grant,
        source,
        write_out: &write_out,
        proof: how.proof,
        digest: how.digest,
    };
    let pack = |work: &Work<_>| Packer::new(source, target, effort)?.work(work, &desk);
    let load = |work: &Work<_>| match source {
        Source::Loaded(loader) => loader.run(work),
        Source::Stored(_) => Ok(()),
    };
    let follow = |work: &Work<_>| match &write_out {
        WriteOut::Followed(follower) => follower.follow(work),
        WriteOut::Begun(_) => Ok(()),
    };
    let mut others: Vec<&Other<'_, _>> = vec![&load; loader::loaders()];
    others.push(&follow);
    crew::share_with(pieces, packing, pack, &others)?;
    let Shelves {
        shelf,
        data,
        places,
    } = shelves.into_inner();
    Ok(Written {
        file_bytes: shelf.finish()?,
        data_digest: how.digest.then(|| data.finish()),
        places: (how.proof != Proof::None).then(|| places.finish()),
    })
}

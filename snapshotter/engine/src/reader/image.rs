//! An image that was checked: its disk can be read.

use std::fs::File;

use pool::{Error, ErrorKind, Result};

use super::compressed::read_extent;
use super::decode::Decoder;
use super::entry::{Extent, Fault, Mapping, l1, l2};
use super::header::{Compression, Header};
use super::pieces::{Pieces, fill};

/// Pieces of 4 KiB of its tables that are kept.
const TABLE_PIECES: usize = 8;

/// What is known of an accepted image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// The size of a cluster in bytes.
    pub cluster_bytes: u64,
    /// Bits of a reference count.
    pub refcount_bits: u32,
    /// How clusters are compressed, if any are.
    pub compression: Compression,
    /// The size of the disk in bytes.
    pub virtual_bytes: u64,
    /// The size of the file in bytes, holes included.
    pub file_bytes: u64,
    /// Clusters of the disk with data of their own.
    pub data_clusters: u64,
    /// Clusters of the disk with compressed data.
    pub compressed_clusters: u64,
    /// Clusters of the disk that read as zero and have room kept for them.
    pub reserved_clusters: u64,
    /// Clusters of the file that are counted as used and are not. They harm nobody; `qemu-img check -r leaks` frees them.
    pub leaked_clusters: u64,
}

impl Facts {
    /// How many bytes of the disk have data.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        let whole = (self.data_clusters + self.compressed_clusters) * self.cluster_bytes;
        whole.min(self.virtual_bytes)
    }
}

/// An accepted image. Only [`check`](super::check) makes one, so no byte of a disk is read before its image is accepted.
#[derive(Debug)]
pub struct Image<'f> {
    file: &'f File,
    header: Header,
    facts: Facts,
    tables: Pieces<'f>,
    decoder: Decoder,
    input: Vec<u8>,
    /// The last cluster that was decoded, and where it came from.
    decoded: Vec<u8>,
    decoded_from: Option<Extent>,
}

/// A part of the disk whose bytes come from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where on the disk it begins, in bytes.
    pub start: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// What is there.
    pub content: Content,
}

/// What a part of a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes.
    Zero,
    /// The bytes of the file from this offset on. Behind the end of the file the disk is zero.
    Data {
        /// In bytes.
        offset: u64,
    },
    /// Compressed clusters.
    Compressed,
}

impl<'f> Image<'f> {
    pub(super) fn new(file: &'f File, header: Header, facts: Facts) -> Self {
        Self {
            file,
            header,
            facts,
            tables: Pieces::new(file, TABLE_PIECES),
            decoder: Decoder::new(header.compression),
            input: Vec::new(),
            decoded: Vec::new(),
            decoded_from: None,
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The file it is.
    #[must_use]
    pub fn file(&self) -> &'f File {
        self.file
    }

    /// Fills `bytes` with the disk's from byte `offset`.
    ///
    /// # Errors
    /// `OutOfRange` behind the end of the disk; `Io`; `Corrupt` when the file changed since it was checked.
    pub fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.header.virtual_bytes) {
            let text = format!(
                "{} bytes from byte {offset} are not all on the disk",
                bytes.len()
            );
            return Err(Error::new(ErrorKind::OutOfRange, text));
        }
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let inside = at % self.header.geometry.cluster_bytes();
            let room = self.header.geometry.cluster_bytes() - inside;
            let length = usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len()));
            let (part, behind) = rest.split_at_mut(length);
            match self.mapping(at)? {
                Mapping::Zero { .. } => part.fill(0),
                Mapping::Data { offset } => fill(self.file, offset + inside, part)?,
                Mapping::Compressed(extent) => self.copy_decoded(extent, inside, part)?,
            }
            at += length as u64;
            rest = behind;
        }
        Ok(())
    }

    /// The disk as runs, from its beginning to its end, each as long as it can be.
    pub fn runs(&mut self) -> impl Iterator<Item = Result<Run>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let run = self.run(at).transpose()?;
            at = run.as_ref().map_or(u64::MAX, |run| run.start + run.bytes);
            Some(run)
        })
    }

    /// The run that begins at `start`, where a cluster begins; `None` behind the disk.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when the file changed since it was checked.
    pub fn run(&mut self, start: u64) -> Result<Option<Run>> {
        let end = self.header.virtual_bytes;
        if start >= end {
            return Ok(None);
        }
        let (content, mut next) = self.piece(start)?;
        while next < end {
            let (more, after) = self.piece(next)?;
            let continues = match (content, more) {
                (Content::Data { offset }, Content::Data { offset: other }) => {
                    other == offset + (next - start)
                }
                (one, other) => one == other,
            };
            if !continues {
                break;
            }
            next = after;
        }
        Ok(Some(Run {
            start,
            bytes: next - start,
            content,
        }))
    }

    /// What is at `start`, where a cluster begins, and where the next entry's part of the disk begins.
    fn piece(&mut self, start: u64) -> Result<(Content, u64)> {
        let geometry = self.header.geometry;
        let end = self.header.virtual_bytes;
        let next_table = (start / geometry.bytes_per_l2() + 1) * geometry.bytes_per_l2();
        let Some(table) = self.l2_table(start)? else {
            let l1 = self.header.l1.offset;
            let (next, last) = (next_table / geometry.bytes_per_l2(), self.header.l1.entries);
            let set = self.tables.first_set(l1 + next * 8, l1 + last * 8)?;
            let next = (set - l1) / 8 * geometry.bytes_per_l2();
            return Ok((Content::Zero, next.min(end)));
        };
        let index = start / geometry.cluster_bytes() % geometry.entries_per_l2();
        let place = table + index * 8;
        let set = self
            .tables
            .first_set(place, table + geometry.cluster_bytes())?;
        if set > place {
            let next = start + (set - place) / 8 * geometry.cluster_bytes();
            return Ok((Content::Zero, next.min(end)));
        }
        let content = match self.mapping(start)? {
            Mapping::Zero { .. } => Content::Zero,
            Mapping::Data { offset } => Content::Data { offset },
            Mapping::Compressed(_) => Content::Compressed,
        };
        Ok((content, (start + geometry.cluster_bytes()).min(end)))
    }

    /// Where the L2 table for byte `at` of the disk is.
    fn l2_table(&mut self, at: u64) -> Result<Option<u64>> {
        let index = at / self.header.geometry.bytes_per_l2();
        let entry = self.tables.number(self.header.l1.offset + index * 8, 8)?;
        l1(entry, self.header.geometry).map_err(changed)
    }

    /// What is at byte `at` of the disk. Every entry is looked at as in the check: the file may have changed since.
    fn mapping(&mut self, at: u64) -> Result<Mapping> {
        let geometry = self.header.geometry;
        let Some(table) = self.l2_table(at)? else {
            return Ok(Mapping::Zero { reserved: None });
        };
        let index = at / geometry.cluster_bytes() % geometry.entries_per_l2();
        let entry = self.tables.number(table + index * 8, 8)?;
        l2(entry, geometry).map_err(changed)
    }

    fn copy_decoded(&mut self, extent: Extent, inside: u64, part: &mut [u8]) -> Result<()> {
        if self.decoded_from != Some(extent) {
            self.decoded_from = None;
            let length = usize::try_from(self.header.geometry.cluster_bytes()).unwrap_or(0);
            self.decoded.resize(length, 0);
            read_extent(self.file, extent, &mut self.input)?;
            self.decoder
                .decode(&self.input, &mut self.decoded)
                .map_err(|fault| {
                    damaged(&format!(
                        "compressed data at byte {}: {fault}",
                        extent.offset
                    ))
                })?;
            self.decoded_from = Some(extent);
        }
        let start = usize::try_from(inside).unwrap_or(usize::MAX);
        let from = self
            .decoded
            .get(start..)
            .and_then(|rest| rest.get(..part.len()));
        match from {
            Some(bytes) => part.copy_from_slice(bytes),
            None => return Err(damaged("a read that leaves its cluster")),
        }
        Ok(())
    }
}

fn changed((_reason, text): Fault) -> Error {
    damaged(&text)
}

fn damaged(text: &str) -> Error {
    let text = format!("the image changed after it was checked: {text}");
    Error::new(ErrorKind::Corrupt, text)
}

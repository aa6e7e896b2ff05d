//! Snapshots in the packed layout: compressed, and compact.
//!
//! ```text
//! header | refcount table | refcount blocks | L1 table | L2 tables in use | data: streams and plain clusters
//! ```
//! The metadata ends where the record says that the data begins (`data_offset`), the file where `file_bytes` says. Both, and
//! the digest over all metadata, are checked before the first pointer in it is followed; the pointers themselves are then read by
//! the strict reader of foreign images, so that not even a record that lies leads anywhere but into the file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pool::record::{Packed, Packing, SnapshotRecord};
use pool::{Context, Error, ErrorKind, Result};

use crate::compact::Count;
use crate::digest::front_digest;
use crate::header::cluster_len;
use crate::layout::{CLUSTER_BYTES, ENTRIES_PER_TABLE};
use crate::pack::PackedFile;
use crate::pack::pieces::{Piece, Place};
use crate::reader::{Compression, Header, Mapping, Refusal, l1, l2, parse};

/// A packed image whose metadata is the recorded one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedImage<'f> {
    image: &'f File,
    header: Header,
}

/// What an image has to be.
#[derive(Clone, Copy)]
struct Recorded<'r> {
    virtual_bytes: u64,
    data_offset: u64,
    metadata_digest: &'r str,
    packed: Packed,
}

/// What the record says of a packed image; `None` for one in the identity layout.
pub(crate) fn packed(record: &SnapshotRecord) -> Option<Packed> {
    match record.packing {
        Packing::Done(packed) => Some(packed),
        Packing::None | Packing::Wanted(_) => None,
    }
}

impl<'f> PackedImage<'f> {
    /// Opens an image that was packed, and holds its metadata against the record.
    ///
    /// # Errors
    /// `Corrupt` when it is not what was recorded; `Io`.
    pub(crate) fn open(image: &'f File, record: &SnapshotRecord, packed: Packed) -> Result<Self> {
        let recorded = Recorded {
            virtual_bytes: record.virtual_bytes,
            data_offset: record.data_offset,
            metadata_digest: &record.metadata_digest,
            packed,
        };
        Self::check(image, recorded).context_with(|| format!("check the image of {}", record.id))
    }

    /// Opens an image that was just written, of a disk of `virtual_bytes`, and holds its metadata against what was written.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn read_back(
        image: &'f File,
        virtual_bytes: u64,
        written: &PackedFile,
    ) -> Result<Self> {
        let recorded = Recorded {
            virtual_bytes,
            data_offset: written.data_offset,
            metadata_digest: &written.metadata_digest,
            packed: written.packed(),
        };
        Self::check(image, recorded)
    }

    fn check(image: &'f File, recorded: Recorded<'_>) -> Result<Self> {
        let packed = recorded.packed;
        check_packed_size(image, packed)?;
        let front = recorded.data_offset;
        if !front.is_multiple_of(CLUSTER_BYTES) || front > packed.file_bytes {
            return Err(corrupt(format!(
                "the record says that data begins at byte {front} of {}",
                packed.file_bytes
            )));
        }
        let found = front_digest(image, front)?;
        if found != recorded.metadata_digest {
            return Err(corrupt(format!(
                "the metadata of the packed image is not what was recorded (digest {found}, recorded {}). Nothing was \
                 restored from it",
                recorded.metadata_digest
            )));
        }
        let mut cluster = vec![0; cluster_len()];
        image
            .read_exact_at(&mut cluster, 0)
            .during("read the header of the packed image")?;
        let header = parse(&cluster, packed.file_bytes).map_err(|refusal| refused(&refusal))?;
        let ours = header.virtual_bytes == recorded.virtual_bytes
            && header.geometry.cluster_bytes() == CLUSTER_BYTES
            && header.compression == Compression::Zstd;
        if !ours {
            return Err(corrupt(
                "the packed image is in order and another one than was recorded".to_owned(),
            ));
        }
        Ok(Self { image, header })
    }

    /// Its allocated clusters, in the order of the disk. Two tables are in memory.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Result<Piece>> + Send + use<'f> {
        let walk = Walk {
            image: self.image,
            header: self.header,
            next: 0,
            l1: vec![0; cluster_len()],
            l1_read: None,
            l2: vec![0; cluster_len()],
            l2_read: None,
        };
        walk.filter_map(|found| match found {
            Ok((cluster, Mapping::Data { offset })) => Some(Ok(Piece {
                cluster,
                place: Place::Plain(offset),
            })),
            Ok((cluster, Mapping::Compressed(extent))) => Some(Ok(Piece {
                cluster,
                place: Place::Stream(extent),
            })),
            Ok((_, Mapping::Zero { .. })) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// How much is allocated.
    pub(crate) fn count(&self) -> Result<Count> {
        let mut count = Count {
            l2_tables: 0,
            clusters: 0,
        };
        let mut last = None;
        for piece in self.pieces() {
            let table = piece?.cluster / ENTRIES_PER_TABLE;
            count.clusters += 1;
            if last.replace(table) != Some(table) {
                count.l2_tables += 1;
            }
        }
        Ok(count)
    }
}

/// Refuses a packed image that is shorter or longer than recorded.
pub(crate) fn check_packed_size(image: &File, packed: Packed) -> Result<()> {
    let found = image.metadata().during("look at the packed image")?.len();
    if found == packed.file_bytes {
        return Ok(());
    }
    Err(corrupt(format!(
        "the packed image has {found} bytes where the record says {}: it was cut short or is another file",
        packed.file_bytes
    )))
}

/// Walks the entries of all L2 tables. After an error there is nothing more.
struct Walk<'f> {
    image: &'f File,
    header: Header,
    /// The cluster of the disk whose entry comes next.
    next: u64,
    l1: Vec<u8>,
    /// Which cluster of the L1 table is in memory.
    l1_read: Option<u64>,
    l2: Vec<u8>,
    /// Which L2 table is in memory.
    l2_read: Option<u64>,
}

impl Walk<'_> {
    fn clusters(&self) -> u64 {
        self.header.virtual_bytes.div_ceil(CLUSTER_BYTES)
    }

    /// The next entry that is not 0.
    fn step(&mut self) -> Result<Option<(u64, Mapping)>> {
        while self.next < self.clusters() {
            let table = self.next / ENTRIES_PER_TABLE;
            if !self.read_table(table)? {
                self.next = (table + 1) * ENTRIES_PER_TABLE;
                continue;
            }
            let entry = number(&self.l2, self.next % ENTRIES_PER_TABLE);
            let cluster = self.next;
            self.next += 1;
            if entry != 0 {
                let mapping = l2(entry, self.header.geometry).map_err(|fault| corrupt(fault.1))?;
                return Ok(Some((cluster, mapping)));
            }
        }
        Ok(None)
    }

    /// Whether there is an L2 table of this number; it is in memory then.
    fn read_table(&mut self, table: u64) -> Result<bool> {
        let part = table / ENTRIES_PER_TABLE;
        if self.l1_read != Some(part) {
            let place = self.header.l1.offset + part * CLUSTER_BYTES;
            read(self.image, place, &mut self.l1)?;
            self.l1_read = Some(part);
        }
        let entry = number(&self.l1, table % ENTRIES_PER_TABLE);
        let place = l1(entry, self.header.geometry).map_err(|fault| corrupt(fault.1))?;
        let Some(place) = place else {
            return Ok(false);
        };
        if self.l2_read != Some(table) {
            read(self.image, place, &mut self.l2)?;
            self.l2_read = Some(table);
        }
        Ok(true)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(u64, Mapping)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.next = u64::MAX;
        }
        step.transpose()
    }
}

fn read(image: &File, offset: u64, bytes: &mut [u8]) -> Result<()> {
    let read = image.read_exact_at(bytes, offset);
    read.context_with(|| format!("read a table of the packed image at byte {offset}"))
}

/// The 8 byte entry number `index`.
fn number(table: &[u8], index: u64) -> u64 {
    let (entries, _) = table.as_chunks::<8>();
    usize::try_from(index)
        .ok()
        .and_then(|at| entries.get(at))
        .map_or(0, |entry| u64::from_be_bytes(*entry))
}

fn refused(refusal: &Refusal) -> Error {
    corrupt(format!("the packed image is not to be read: {refusal}"))
}

fn corrupt(text: String) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

//! Cutting a snapshot of a raw image.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use pool::fault::{Step, reached};
use pool::{Context, Error, ErrorKind, Result};

use crate::copy::{Part, Watch, copy_data, forget_cached};
use crate::data_map::{ClusterRuns, DataRuns};
use crate::digest::{ClusterHash, check_size, digest_of, for_each_cluster};
use crate::layout::{CLUSTER_BYTES, Layout};
use crate::tables;

/// How many clusters of metadata are written before the disk is to begin with them: a disk of 4 GiB has about as many.
const AT_ONCE: usize = 8;

/// A snapshot being made in a private file. The order is [`prepare`](Self::prepare), one of [`reflink`](Self::reflink)
/// and [`copy`](Self::copy), [`finish`](Self::finish).
///
/// After an error the file is worth nothing and belongs in the bin; the source is never changed.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    image: &'a File,
    layout: Layout,
}

/// A finished snapshot image: what its record has to say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The size of the disk in bytes.
    pub virtual_bytes: u64,
    /// Where in the file the disk lies, in bytes.
    pub data_offset: u64,
    /// The digest of the metadata, 64 hex digits.
    pub metadata_digest: String,
    /// Runs of data between holes.
    pub runs: u64,
    /// What the file has allocated, data and metadata, in bytes: it can come to hold this much alone.
    pub charge_bytes: u64,
}

impl<'a> Cut<'a> {
    /// Prepares `image`, a new empty file open for reading and writing, for a disk of `virtual_bytes` bytes. Cheap, and
    /// to be done before the source is frozen.
    ///
    /// # Errors
    /// Those of [`Layout::for_virtual_size`]; `Internal` when the file is not empty; `Io`.
    pub fn prepare(image: &'a File, virtual_bytes: u64) -> Result<Self> {
        let layout = Layout::for_virtual_size(virtual_bytes)?;
        let found = image.metadata().during("look at the new image")?.len();
        if found != 0 {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("a snapshot has to be cut into an empty file, and this has {found} bytes"),
            ));
        }
        // The range that is cut is appended here, so that the call needs nothing but its own blocks.
        image
            .set_len(layout.data_offset())
            .during("size the new image")?;
        Ok(Self { image, layout })
    }

    /// Where everything lies in the image.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes the snapshot by sharing the blocks of `source`: exactly one ioctl, atomic against everything that writes
    /// to `source` meanwhile, and the point in time. Returns how long it took, which is how long writers were held back:
    /// 20 to 25 microseconds for each extent of the source on XFS, 9 on Btrfs.
    ///
    /// Nothing is durable before [`finish`](Self::finish).
    ///
    /// # Errors
    /// `Precondition` where the filesystem cannot share blocks between the two files (then [`copy`](Self::copy) is the
    /// way); `Corrupt` when the source is smaller than the disk; `NoSpace`; `Io`.
    pub fn reflink(&self, source: &File) -> Result<Duration> {
        let length = self.layout.virtual_bytes();
        check_source(source, length)?;
        let start = Instant::now();
        let cut = pool::sys::clone_range(source, 0, length, self.image, self.layout.data_offset());
        let stall = start.elapsed();
        cut.map_err(cannot_share).during("cut the snapshot")?;
        Ok(stall)
    }

    /// Takes the snapshot by copying the data of `source`, for filesystems that cannot share blocks. **The caller has to
    /// make sure that nothing writes to `source` from before this call until it returns**: it is not attached, or the
    /// filesystem in it is frozen until `watch.deadline`.
    ///
    /// The copy sees all that was written before, also by a loop device with direct I/O. It returns `Ok` only when it
    /// was complete before the deadline and still wanted. Holes stay holes. Nothing is durable before
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// `Precondition` past the deadline, with what to do; `Uncertain` when told to stop: nothing went wrong, and the
    /// same call may be made again; `Corrupt` when the source is smaller than the disk; `NoSpace`; `Io`.
    pub fn copy(&self, source: &File, watch: &Watch<'_>) -> Result<()> {
        let length = self.layout.virtual_bytes();
        check_source(source, length)?;
        // At its full size from the start: XFS preallocates behind the end of a file that grows by writes.
        self.image
            .set_len(self.layout.file_bytes())
            .during("size the new image")?;
        forget_cached(source)?;
        let part = Part {
            file: source,
            offset: 0,
            length,
        };
        copy_data(part, self.image, self.layout.data_offset(), watch)
    }

    /// Makes a qcow2 file of what was cut: finds the data in the private image and writes the metadata. The caller has to sync it, to
    /// drop the metadata from the page cache, and to hold what the disk has against what was built, by [`ReadBack::compare`], before
    /// it gives the file a name.
    ///
    /// If we stop before that, the file is a private leftover for the caller's recovery to sweep. Not to be called twice for
    /// one file.
    ///
    /// # Errors
    /// `Corrupt` when nothing was cut; `NoSpace`; `Io`.
    pub fn finish(self) -> Result<(Captured, ReadBack)> {
        check_size(self.image, &self.layout)?;
        let (written, runs) = self.write_metadata()?;
        reached(Step::SnapshotMetadataWritten)?;
        let metadata = self.image.metadata().during("look at the snapshot image")?;
        let captured = Captured {
            virtual_bytes: self.layout.virtual_bytes(),
            data_offset: self.layout.data_offset(),
            metadata_digest: digest_of(written.iter().copied()),
            runs,
            // In units of 512 bytes whatever the filesystem's block size, and counting shared blocks.
            charge_bytes: metadata.blocks() * 512,
        };
        let layout = self.layout;
        Ok((captured, ReadBack { layout, written }))
    }

    /// Writes all metadata. Returns the hashes of the clusters in file order (40 bytes each: 5 KiB for 50 GiB, 6.5 MiB
    /// for the largest disk with data everywhere), and the runs of data.
    fn write_metadata(&self) -> Result<(Vec<ClusterHash>, u64)> {
        let (offset, length) = (self.layout.data_offset(), self.layout.virtual_bytes());
        let mut runs = ClusterRuns::new(DataRuns::new(self.image, offset, length));
        let mut written = Vec::new();
        tables::build(&self.layout, runs.by_ref(), &mut |cluster, bytes| {
            written.push(ClusterHash::new(cluster, bytes));
            self.write_cluster(cluster, bytes)?;
            if written.len() % AT_ONCE == 0 {
                self.begin_write_out();
            }
            Ok(())
        })?;
        written.sort_unstable_by_key(|hash| hash.cluster);
        Ok((written, runs.byte_runs()))
    }

    /// Lets the disk begin with what was written so far. Advice only: the sync of the image says what came of it.
    fn begin_write_out(&self) {
        let begun = pool::sys::begin_write_out(self.image, 0, self.layout.data_offset());
        if let Err(error) = begun {
            tracing::debug!(%error, "writing out was not begun early");
        }
    }

    /// Writes a cluster without the zero blocks at its end: there is a hole already, and a small disk's tables are
    /// mostly empty.
    fn write_cluster(&self, cluster: u64, bytes: &[u8]) -> Result<()> {
        const BLOCK: usize = 4096;
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        let used = blocks.iter().rposition(|block| *block != [0; BLOCK]);
        let length = used.map_or(0, |last| (last + 1) * BLOCK);
        let offset = cluster * CLUSTER_BYTES;
        self.image
            .write_all_at(&bytes[..length], offset)
            .context_with(|| {
                let what = self.layout.describe(cluster);
                format!("write {what} of the snapshot image at byte {offset}")
            })
    }
}

/// What a finished snapshot image has to read back as.
#[derive(Clone, Debug)]
#[must_use = "an image that was not compared may not be what was built"]
pub struct ReadBack {
    layout: Layout,
    /// In file order.
    written: Vec<ClusterHash>,
}

impl ReadBack {
    /// Compares the metadata on disk with the hashes of what was built.
    ///
    /// # Errors
    /// `Io` when it cannot be read, or what is read differs from what was written.
    pub fn compare(&self, image: &File) -> Result<()> {
        let mut expected = self.written.iter();
        for_each_cluster(image, &self.layout, |cluster, bytes| {
            let found = ClusterHash::new(cluster, bytes);
            match expected.next() {
                Some(hash) if *hash == found => Ok(()),
                Some(hash) => Err(self.misread(cluster.min(hash.cluster))),
                None => Err(self.misread(cluster)),
            }
        })?;
        expected
            .next()
            .map_or(Ok(()), |hash| Err(self.misread(hash.cluster)))
    }

    fn misread(&self, cluster: u64) -> Error {
        Error::new(
            ErrorKind::Io,
            format!(
                "{} of the snapshot image at byte {} reads back differently than it was written: the disk or its \
                 filesystem is not to be trusted, look at the kernel's log",
                self.layout.describe(cluster),
                cluster * CLUSTER_BYTES
            ),
        )
    }
}

/// Refuses a source without the bytes that are to be taken from it: a clone of what is not there would fail with no
/// reason, or leave zeroes.
pub(crate) fn check_source(source: &File, length: u64) -> Result<()> {
    let found = source.metadata().during("look at the source image")?.len();
    if found >= length {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "the source image has {found} bytes where there should be {length}: it was cut short"
        ),
    ))
}

/// Whether the kernel says that these two files cannot share blocks, which no second try changes. `EINVAL` is what Btrfs
/// answers for one file with and one without `chattr +C`.
pub(crate) fn is_unshareable(error: &std::io::Error) -> bool {
    let errnos = [
        Errno::EOPNOTSUPP,
        Errno::EXDEV,
        Errno::ENOTTY,
        Errno::ENOSYS,
        Errno::EINVAL,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| errnos.contains(&Errno::from_raw(code)))
}

/// An error of a clone as ours.
pub(crate) fn cannot_share(error: std::io::Error) -> Error {
    let kind = is_unshareable(&error).then_some(ErrorKind::Precondition);
    let operation = "share the blocks of the source image";
    match kind {
        Some(kind) => Error::io(
            format!(
                "{operation} (this works within one XFS made with reflink=1 or within one Btrfs, there only between \
                 files that are both or neither chattr +C)"
            ),
            error,
        )
        .with_kind(kind),
        None => Error::io(operation, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_reads_back_differently_is_an_error_that_names_its_place() {
        let image = tempfile::tempfile().unwrap();
        let cut = Cut::prepare(&image, 1 << 30).unwrap();
        image.set_len(cut.layout().file_bytes()).unwrap();
        image
            .write_all_at(&[1; 4096], cut.layout().data_offset())
            .unwrap();
        let (captured, read_back) = cut.finish().unwrap();
        assert_eq!(captured.runs, 1);
        read_back.compare(&image).unwrap();
        // In a table, behind the used part of one, and where no table is in use.
        for position in [
            0,
            3 * CLUSTER_BYTES + 7,
            4 * CLUSTER_BYTES - 1,
            5 * CLUSTER_BYTES,
        ] {
            let mut before = [0];
            image.read_exact_at(&mut before, position).unwrap();
            image.write_all_at(&[before[0] ^ 1], position).unwrap();
            let error = read_back.compare(&image).unwrap_err();
            let place = format!("at byte {} ", position / CLUSTER_BYTES * CLUSTER_BYTES);
            assert!(error.to_string().contains(&place), "{error}");
            image.write_all_at(&before, position).unwrap();
        }
        read_back.compare(&image).unwrap();
    }
}

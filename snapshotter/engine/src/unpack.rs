//! A packed snapshot back into a raw image, on all processors.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pool::record::{Packed, SnapshotRecord};
use pool::{Context, Result};

use crate::copy::Watch;
use crate::header::cluster_len;
use crate::layout::CLUSTER_BYTES;
use crate::pack::crew::{How, share};
use crate::pack::pieces::{BATCH, PieceReader, neighbours};
use crate::packed::{PackedImage, check_packed_size};

/// Writes the disk into `target`, which reads as zero and is large enough. Every stream has to decode to exactly a cluster with
/// the checksum that it carries.
///
/// # Errors
/// `Corrupt` when the image is not what the record says or holds other data than was written; those of [`Watch`]; `NoSpace`; `Io`.
pub(crate) fn unpack(
    image: &File,
    record: &SnapshotRecord,
    packed: Packed,
    target: &File,
    watch: &Watch<'_>,
) -> Result<()> {
    let source = PackedImage::open(image, record, packed)?;
    let how = How {
        watch,
        idle: false,
        clusters: source.count()?.clusters,
        tend: &|| Ok(()),
    };
    share(source.pieces(), how, |work| {
        let mut reader = PieceReader::new(image);
        let mut bytes = vec![0; BATCH * cluster_len()];
        while let Some(batch) = work.next()? {
            let length = batch.pieces.len() * cluster_len();
            let disk = bytes.get_mut(..length).unwrap_or_default();
            reader.read(&batch.pieces, disk)?;
            for (run, first) in neighbours(&batch.pieces) {
                let range = run.start * cluster_len()..run.end * cluster_len();
                let place = first * CLUSTER_BYTES;
                target
                    .write_all_at(disk.get(range).unwrap_or_default(), place)
                    .context_with(|| format!("write the disk at byte {place}"))?;
            }
            work.done(&batch);
        }
        Ok(())
    })?;
    // A deletion would have cut it short.
    check_packed_size(image, packed)
}

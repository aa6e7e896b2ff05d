//! The allocated clusters of a snapshot, in either layout, one after the other, and their bytes.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use pool::{Context, Error, ErrorKind, Result};

use crate::header::cluster_len;
use crate::layout::{CLUSTER_BYTES, Layout};
use crate::mapping::MappedRuns;
use crate::reader::{Compression, Decoder, Extent, fill};

/// Clusters that are read, encoded or decoded, and written in one go: 512 KiB of the disk.
pub(crate) const BATCH: usize = 8;
/// Streams are read in one piece if they lie within so many bytes: those of one batch nearly always do.
const SPAN_BYTES: u64 = 2 << 20;

/// An allocated cluster of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its number.
    pub(crate) cluster: u64,
    /// Where its bytes are.
    pub(crate) place: Place,
}

/// Where in a snapshot's image the bytes of a cluster are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// As they are, from this byte on.
    Plain(u64),
    /// Compressed.
    Stream(Extent),
}

impl Place {
    /// The bytes of the file that are read for it.
    pub(crate) fn range(self) -> Range<u64> {
        match self {
            Self::Plain(offset) => offset..offset + CLUSTER_BYTES,
            Self::Stream(extent) => extent.offset..extent.end,
        }
    }
}

/// The clusters of an image in the identity layout.
pub(crate) fn of_identity<'a>(
    image: &'a File,
    layout: &'a Layout,
) -> impl Iterator<Item = Result<Piece>> + Send {
    let piece = |cluster| Piece {
        cluster,
        place: Place::Plain(layout.data_offset() + cluster * CLUSTER_BYTES),
    };
    MappedRuns::new(image, layout).flat_map(move |run: Result<Range<u64>>| {
        let (clusters, error) = match run {
            Ok(run) => (run, None),
            Err(error) => (0..0, Some(Err(error))),
        };
        clusters.map(move |cluster| Ok(piece(cluster))).chain(error)
    })
}

/// Reads clusters. Its memory is bounded: a batch, its streams and a decoder.
pub(crate) struct PieceReader<'f> {
    image: &'f File,
    decoder: Decoder,
    input: Vec<u8>,
}

impl<'f> PieceReader<'f> {
    pub(crate) fn new(image: &'f File) -> Self {
        Self {
            image,
            decoder: Decoder::new(Compression::Zstd),
            input: Vec::new(),
        }
    }

    /// Reads the clusters of `pieces` into `bytes`, one behind the other.
    ///
    /// # Errors
    /// `Corrupt` for compressed data that is not what was written; `Io`.
    pub(crate) fn read(&mut self, pieces: &[Piece], bytes: &mut [u8]) -> Result<()> {
        let clusters = bytes.chunks_mut(cluster_len());
        let span = span(pieces);
        if let Some(span) = &span {
            self.fetch(span)?;
        }
        for (piece, cluster) in pieces.iter().zip(clusters) {
            match piece.place {
                Place::Plain(offset) => {
                    let read = self.image.read_exact_at(cluster, offset);
                    read.context_with(|| format!("read the snapshot image at byte {offset}"))?;
                }
                Place::Stream(extent) => self.decode(extent, span.as_ref(), cluster)?,
            }
        }
        Ok(())
    }

    fn fetch(&mut self, range: &Range<u64>) -> Result<()> {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        self.input.resize(length, 0);
        fill(self.image, range.start, &mut self.input)
    }

    fn decode(
        &mut self,
        extent: Extent,
        span: Option<&Range<u64>>,
        cluster: &mut [u8],
    ) -> Result<()> {
        let length = usize::try_from(extent.end - extent.offset).unwrap_or(0);
        let start = match span {
            Some(span) => usize::try_from(extent.offset - span.start).unwrap_or(0),
            None => {
                self.fetch(&(extent.offset..extent.end))?;
                0
            }
        };
        let stream = self.input.get(start..start + length).unwrap_or_default();
        let decoded = self.decoder.decode(stream, cluster);
        decoded.map_err(|fault| changed(extent, fault))
    }
}

fn changed(extent: Extent, fault: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the compressed data at byte {} of the snapshot image is not what was written: {fault}. The disk or its filesystem \
             changed it",
            extent.offset
        ),
    )
}

/// What has to be read for all streams at once, where that is not too much.
fn span(pieces: &[Piece]) -> Option<Range<u64>> {
    span_of(pieces.iter().filter_map(|piece| match piece.place {
        Place::Stream(_) => Some(piece.place.range()),
        Place::Plain(_) => None,
    }))
}

/// From the first byte of all to the last, where that is not too much.
fn span_of(ranges: impl Iterator<Item = Range<u64>>) -> Option<Range<u64>> {
    let span = ranges.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))?;
    (span.end - span.start <= SPAN_BYTES).then_some(span)
}

/// Whether clusters follow each other, so that they can be written in one piece.
pub(crate) fn neighbours(pieces: &[Piece]) -> impl Iterator<Item = (Range<usize>, u64)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = pieces.get(from)?;
        let rest = pieces.get(from..)?;
        let count = (first.cluster..)
            .zip(rest)
            .take_while(|(expected, piece)| piece.cluster == *expected)
            .count();
        let run = from..from + count;
        from = run.end;
        Some((run, first.cluster))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_that_follow_each_other_are_written_in_one_piece() {
        let piece = |cluster| Piece {
            cluster,
            place: Place::Plain(0),
        };
        let pieces: Vec<Piece> = [1, 2, 3, 7, 9, 10].into_iter().map(piece).collect();
        let found: Vec<_> = neighbours(&pieces).collect();
        assert_eq!(found, [(0..3, 1), (3..4, 7), (4..6, 9)]);
        assert_eq!(neighbours(&[]).count(), 0);
    }

    #[test]
    fn streams_that_lie_far_apart_are_not_read_in_one_piece() {
        let stream = |offset| Piece {
            cluster: 0,
            place: Place::Stream(Extent {
                offset,
                end: offset + 512,
            }),
        };
        assert_eq!(span(&[]), None);
        assert_eq!(span(&[stream(4096), stream(1024)]), Some(1024..4608));
        assert_eq!(span(&[stream(0), stream(1 << 40)]), None);
    }
}

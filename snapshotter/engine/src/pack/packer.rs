//! One of the crew: reads batches, compresses and proves them, and writes them once they have their places.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::{Context, Error, ErrorKind, Result};
use zstd::zstd_safe::CCtx;

use super::behind::Behind;
use super::crew::{Batch, Patience, Turns, Work};
use super::effort::Effort;
use super::grant::Grant;
use super::pieces::{BATCH, Piece, PieceReader, Place};
use super::shelf::{Item, Shelf};
use crate::data_digest::Sum;
use crate::digest::{ClusterHash, is_zero};
use crate::header::cluster_len;
use crate::layout::CLUSTER_BYTES;
use crate::reader::{Compression, Decoder};

/// A stream gets at least this much room. A cluster of one pattern needs less, but an image whose data expands to more than 1,032
/// times its size is no image that the strict reader takes.
const MIN_STREAM: usize = 64;
/// How many batches one of the crew may have done before their turn has come. Noise is done much faster than text, so whoever meets
/// it would wait.
const HANDS: usize = 3;

/// What is made of each cluster in its turn.
pub(super) struct Shelves<'f> {
    pub(super) shelf: Shelf<'f>,
    pub(super) data: Sum,
    pub(super) stored: Sum,
}

/// What the crew shares.
pub(super) struct Desk<'a, 'f> {
    pub(super) shelves: &'a Turns<Shelves<'f>>,
    pub(super) grant: &'a Grant,
    pub(super) behind: &'a Behind<'f>,
    pub(super) idle: bool,
    pub(super) proven: bool,
    pub(super) digest: bool,
}

/// What one of the crew works with.
pub(super) struct Packer<'f> {
    image: &'f File,
    target: &'f File,
    reader: PieceReader<'f>,
    encoder: Option<CCtx<'static>>,
    decoder: Decoder,
    decoded: Vec<u8>,
}

/// A batch, and what has become of it.
struct Hand {
    batch: Batch,
    /// Its clusters.
    bytes: Vec<u8>,
    /// Their streams, one behind the other.
    streams: Vec<u8>,
    /// What the clusters have become that are not zero: number, place in the batch.
    items: Vec<(u64, usize, Found)>,
    /// What the batch gives to the digest of the data, if that is made.
    data: Vec<ClusterHash>,
    /// And to that of what is written.
    stored: Vec<ClusterHash>,
}

/// What a cluster has become.
#[derive(Clone, Debug)]
enum Found {
    /// This part of the clusters.
    Plain(Range<usize>),
    /// This part of the streams: the frame, and then zeroes up to the end.
    Stream { frame: Range<usize>, end: usize },
}

impl Hand {
    fn new() -> Self {
        Self {
            batch: Batch {
                number: 0,
                pieces: Vec::new(),
            },
            bytes: vec![0; BATCH * cluster_len()],
            streams: vec![0; BATCH * cluster_len()],
            items: Vec::with_capacity(BATCH),
            data: Vec::new(),
            stored: Vec::new(),
        }
    }

    fn cluster(&self, at: usize) -> &[u8] {
        let bytes = self.bytes.get(at * cluster_len()..(at + 1) * cluster_len());
        bytes.unwrap_or_default()
    }

    fn digest_data(&mut self) {
        let hash = |(number, at, _found): &_| ClusterHash::new(*number, self.cluster(*at));
        self.data = self.items.iter().map(hash).collect();
    }

    /// The places of the batch, and how large the file is with them; `None` when it is not its turn, or when the work was stopped.
    fn take_places<I>(
        &self,
        patience: Patience,
        desk: &Desk<'_, '_>,
        work: &Work<I>,
    ) -> Result<Option<(Vec<u64>, u64)>> {
        desk.shelves
            .take(self.batch.number, patience, work, |shelves| {
                let places = self.place(&mut shelves.shelf)?;
                self.data.iter().for_each(|hash| shelves.data.add(hash));
                self.stored.iter().for_each(|hash| shelves.stored.add(hash));
                let file_bytes = shelves.shelf.file_bytes();
                desk.grant.wait_for(file_bytes, work);
                Ok((places, file_bytes))
            })
    }

    fn place(&self, shelf: &mut Shelf<'_>) -> Result<Vec<u64>> {
        let place = |(cluster, _at, found): &(u64, usize, Found)| {
            let item = match found {
                Found::Plain(_) => Item::Plain,
                Found::Stream { frame, end } => Item::Stream((end - frame.start) as u64),
            };
            shelf.place(*cluster, item)
        };
        self.items.iter().map(place).collect()
    }
}

impl<'f> Packer<'f> {
    pub(super) fn new(image: &'f File, target: &'f File, effort: Option<Effort>) -> Result<Self> {
        Ok(Self {
            image,
            target,
            reader: PieceReader::new(image),
            encoder: effort.map(Effort::encoder).transpose()?,
            decoder: Decoder::new(Compression::Zstd),
            decoded: vec![0; cluster_len()],
        })
    }

    /// Does its part of the work, until there is none left.
    ///
    /// # Errors
    /// `Corrupt` for a source that does not decode; `NoSpace`; `Io`.
    pub(super) fn work<I>(&mut self, work: &Work<I>, desk: &Desk<'_, '_>) -> Result<()>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        // What waits for its turn, and what is free for more.
        let mut full = VecDeque::with_capacity(HANDS);
        let mut free = Vec::new();
        loop {
            let batch = work.next()?;
            let at_the_end = batch.is_none();
            if let Some(batch) = batch {
                let mut hand = free.pop().unwrap_or_else(Hand::new);
                self.read(batch, &mut hand)?;
                self.compress(&mut hand);
                if desk.proven {
                    self.prove(&mut hand)?;
                }
                if desk.digest {
                    hand.digest_data();
                }
                full.push_back(hand);
            }
            while let Some(hand) = full.front() {
                let patience = Patience::of(at_the_end || full.len() == HANDS);
                let placed = hand.take_places(patience, desk, work)?;
                let Some((placed, file_bytes)) = placed else {
                    break;
                };
                if work.is_stopped() {
                    return Ok(());
                }
                self.write(hand, &placed)?;
                if desk.idle {
                    self.forget(&hand.batch);
                }
                desk.behind.follow(file_bytes)?;
                work.done(&hand.batch);
                free.extend(full.pop_front());
            }
            if at_the_end || work.is_stopped() {
                return Ok(());
            }
        }
    }

    fn read(&mut self, batch: Batch, hand: &mut Hand) -> Result<()> {
        hand.batch = batch;
        let pieces = &hand.batch.pieces;
        let room = hand.bytes.get_mut(..pieces.len() * cluster_len());
        self.reader.read(pieces, room.unwrap_or_default())
    }

    fn compress(&mut self, hand: &mut Hand) {
        let streams = &mut hand.streams;
        hand.items.clear();
        let mut used = 0;
        let clusters = hand.bytes.chunks(cluster_len());
        for ((piece, cluster), at) in hand.batch.pieces.iter().zip(clusters).zip(0..) {
            if is_zero(cluster) {
                continue;
            }
            // Less than a cluster, or it is no gain.
            let room = streams.get_mut(used..used + cluster_len() - 1);
            let stream = match (&mut self.encoder, room) {
                (Some(encoder), Some(room)) => encoder.compress2(room, cluster).ok(),
                _ => None,
            };
            let found = match stream {
                Some(length) => {
                    let end = used + length.max(MIN_STREAM);
                    if let Some(padding) = streams.get_mut(used + length..end) {
                        padding.fill(0);
                    }
                    let frame = used..used + length;
                    used = end;
                    Found::Stream { frame, end }
                }
                None => Found::Plain(at * cluster_len()..(at + 1) * cluster_len()),
            };
            hand.items.push((piece.cluster, at, found));
        }
    }

    /// Decodes what was encoded, and remembers what is about to be written.
    fn prove(&mut self, hand: &mut Hand) -> Result<()> {
        let mut hashes = Vec::with_capacity(hand.items.len());
        for (number, at, found) in &hand.items {
            let cluster = hand.cluster(*at);
            let stored = match found {
                Found::Plain(_) => cluster,
                Found::Stream { frame, .. } => {
                    let frame = hand.streams.get(frame.clone()).unwrap_or_default();
                    let decoded = self.decoder.decode(frame, &mut self.decoded);
                    if decoded.is_err() || self.decoded != cluster {
                        return Err(not_proven(*number));
                    }
                    frame
                }
            };
            hashes.push(ClusterHash::new(*number, stored));
        }
        hand.stored = hashes;
        Ok(())
    }

    /// Writes the batch, what lies together in one piece.
    fn write(&self, hand: &Hand, places: &[u64]) -> Result<()> {
        let mut run: Option<(u64, &[u8], Range<usize>)> = None;
        for ((_, _, found), place) in hand.items.iter().zip(places) {
            let (source, range) = match found {
                Found::Plain(range) => (hand.bytes.as_slice(), range.clone()),
                Found::Stream { frame, end } => (hand.streams.as_slice(), frame.start..*end),
            };
            if let Some((start, of, whole)) = &mut run {
                let continues = std::ptr::eq(*of, source)
                    && whole.end == range.start
                    && *start + whole.len() as u64 == *place;
                if continues {
                    whole.end = range.end;
                    continue;
                }
                self.write_at(*start, of, whole)?;
            }
            run = Some((*place, source, range));
        }
        match run {
            Some((start, of, whole)) => self.write_at(start, of, &whole),
            None => Ok(()),
        }
    }

    fn write_at(&self, place: u64, source: &[u8], range: &Range<usize>) -> Result<()> {
        let bytes = source.get(range.clone()).unwrap_or_default();
        let written = self.target.write_all_at(bytes, place);
        written.context_with(|| format!("write the packed image at byte {place}"))
    }

    /// Lets go of what was read: nobody will soon read it again, and the page cache is the guests'.
    fn forget(&self, batch: &Batch) {
        let (Some(first), Some(last)) = (batch.pieces.first(), batch.pieces.last()) else {
            return;
        };
        let (Place::Plain(start), Place::Plain(end)) = (first.place, last.place) else {
            return;
        };
        let number = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
        let length = number((end + CLUSTER_BYTES).saturating_sub(start));
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        if let Err(errno) = posix_fadvise(self.image, number(start), length, advice) {
            tracing::debug!(%errno, "advice on cached pages of a snapshot was refused");
        }
    }
}

fn not_proven(cluster: u64) -> Error {
    Error::new(
        ErrorKind::Io,
        format!(
            "what cluster {cluster} of the disk was compressed to does not decode to it: the memory or the processor of this machine \
             is not to be trusted, test them"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_does_not_decode_to_its_cluster_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        let mut packer = Packer::new(&file, &file, Some(Effort::USUAL)).unwrap();
        let mut hand = Hand::new();
        hand.batch.pieces = vec![Piece {
            cluster: 7,
            place: Place::Plain(0),
        }];
        let text = (0..=250).cycle().step_by(7);
        hand.bytes = text.take(cluster_len()).collect();
        packer.compress(&mut hand);
        packer.prove(&mut hand).unwrap();
        assert_eq!(hand.stored.len(), 1);
        // As memory that forgets would do it.
        for at in 4..40 {
            hand.streams[at] ^= 1;
            let error = packer.prove(&mut hand).expect_err(&format!("byte {at}"));
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            hand.streams[at] ^= 1;
        }
        hand.bytes[100] ^= 1;
        packer.prove(&mut hand).unwrap_err();
    }
}

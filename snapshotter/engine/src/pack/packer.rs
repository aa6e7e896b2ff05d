//! One of the crew: reads batches, compresses and proves them, and writes them once they have their places.

use std::collections::VecDeque;
use std::fs::File;
use std::iter::repeat;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use blake3::Hash;
use pool::{Context, Error, ErrorKind, Result};
use zstd::zstd_safe::CCtx;

use super::Proof;
use super::behind::Behind;
use super::crew::{Patience, Turns, Work};
use super::effort::Effort;
use super::follower::{Follower, Stored};
use super::grant::Grant;
use super::loader::{self, Load, Loader};
use super::pieces::{BATCH, Piece, PieceReader};
use super::shelf::{Item, PlacesSum, Shelf};
use crate::data_digest::Sum;
use crate::digest::{ClusterHash, is_zero};
use crate::direct::Memory;
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
    pub(super) places: PlacesSum,
}

/// How what was written gets to the disk.
pub(super) enum WriteOut<'f> {
    /// It is on its way there, and a sync waits for it.
    Begun(Behind<'f>),
    /// Somebody waits for it all the time.
    Followed(Follower<'f>),
}

/// Who reads what is packed.
pub(super) enum Source<'f> {
    /// It is read ahead.
    Loaded(Loader<'f>),
    /// Each packer reads, and decodes.
    Stored(&'f File),
}

/// What the crew shares.
pub(super) struct Desk<'a, 'f> {
    pub(super) shelves: &'a Turns<Shelves<'f>>,
    pub(super) grant: &'a Grant,
    pub(super) source: &'a Source<'f>,
    pub(super) write_out: &'a WriteOut<'f>,
    pub(super) proof: Proof,
    pub(super) digest: bool,
}

/// What one of the crew works with.
pub(super) struct Packer<'f> {
    target: &'f File,
    reader: Option<PieceReader<'f>>,
    encoder: Option<CCtx<'static>>,
    decoder: Decoder,
    decoded: Vec<u8>,
    /// What it reads into, if it reads.
    memory: Vec<Memory>,
}

/// A batch, and what has become of it.
struct Hand {
    load: Load,
    /// The streams of its clusters, one behind the other.
    streams: Vec<u8>,
    /// What the clusters have become that are not zero: number, place in the batch.
    items: Vec<(u64, usize, Found)>,
    /// What the batch gives to the digest of the data, if that is made.
    data: Vec<ClusterHash>,
    /// The hashes of what is written, if that is read back.
    stored: Vec<Hash>,
}

/// What a cluster has become.
#[derive(Clone, Debug)]
enum Found {
    /// This part of the clusters.
    Plain(Range<usize>),
    /// This part of the streams: the frame, and then zeroes up to the end.
    Stream { frame: Range<usize>, end: usize },
}

impl Found {
    /// What takes room for it.
    fn item(&self) -> Item {
        match self {
            Self::Plain(_) => Item::Plain,
            Self::Stream { frame, end } => Item::Stream((end - frame.start) as u64),
        }
    }

    /// How many bytes of that say something.
    fn bytes(&self) -> u64 {
        match self {
            Self::Plain(range) | Self::Stream { frame: range, .. } => range.len() as u64,
        }
    }
}

impl Hand {
    fn new() -> Self {
        Self {
            load: Load::default(),
            streams: vec![0; BATCH * cluster_len()],
            items: Vec::with_capacity(BATCH),
            data: Vec::new(),
            stored: Vec::new(),
        }
    }

    fn cluster(&self, at: usize) -> &[u8] {
        let bytes = self.load.bytes.bytes();
        let cluster = bytes.get(at * cluster_len()..(at + 1) * cluster_len());
        cluster.unwrap_or_default()
    }

    /// What is written for a cluster, without what fills it up.
    fn bytes_of(&self, found: &Found) -> &[u8] {
        let bytes = match found {
            Found::Plain(range) => self.load.bytes.bytes().get(range.clone()),
            Found::Stream { frame, .. } => self.streams.get(frame.clone()),
        };
        bytes.unwrap_or_default()
    }

    fn digest_stored(&mut self) {
        let hash = |(_number, _at, found): &_| blake3::hash(self.bytes_of(found));
        self.stored = self.items.iter().map(hash).collect();
    }

    fn digest_data(&mut self) {
        let hash = |(number, at, _found): &_| ClusterHash::new(*number, self.cluster(*at));
        self.data = self.items.iter().map(hash).collect();
    }

    /// The place of each item, and how large the file is with them; `None` when it is not its turn, or when the work was stopped.
    fn take_places<I>(
        &self,
        patience: Patience,
        desk: &Desk<'_, '_>,
        work: &Work<I>,
    ) -> Result<Option<(Vec<u64>, u64)>> {
        desk.shelves
            .take(self.load.batch.number, patience, work, |shelves| {
                let places = self.place(&mut shelves.shelf)?;
                self.data.iter().for_each(|hash| shelves.data.add(hash));
                for ((number, _at, found), place) in self.items.iter().zip(&places) {
                    let place = found.item().at(*place);
                    let cluster = *number;
                    shelves.places.add(&Piece { cluster, place });
                }
                let file_bytes = shelves.shelf.file_bytes();
                desk.grant.wait_for(file_bytes, work);
                Ok((places, file_bytes))
            })
    }

    fn place(&self, shelf: &mut Shelf<'_>) -> Result<Vec<u64>> {
        let place =
            |(cluster, _at, found): &(u64, usize, Found)| shelf.place(*cluster, found.item());
        self.items.iter().map(place).collect()
    }

    /// What was written at these places.
    fn stored(&self, places: &[u64]) -> Vec<Stored> {
        let hashes = self.stored.iter().copied().map(Some).chain(repeat(None));
        let all = self.items.iter().zip(places).zip(hashes);
        all.map(|(((_, _, found), place), hash)| Stored {
            bytes: *place..*place + found.bytes(),
            hash,
        })
        .collect()
    }
}

impl<'f> Packer<'f> {
    pub(super) fn new(
        source: &Source<'f>,
        target: &'f File,
        effort: Option<Effort>,
    ) -> Result<Self> {
        let reader = match source {
            Source::Loaded(_) => None,
            Source::Stored(image) => Some(PieceReader::new(image)),
        };
        Ok(Self {
            target,
            reader,
            encoder: effort.map(Effort::encoder).transpose()?,
            decoder: Decoder::new(Compression::Zstd),
            decoded: vec![0; cluster_len()],
            memory: Vec::new(),
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
            let load = self.next(work, desk)?;
            let at_the_end = load.is_none();
            if let Some(load) = load {
                let mut hand = free.pop().unwrap_or_else(Hand::new);
                hand.load = load;
                self.compress(&mut hand);
                if desk.proof != Proof::None {
                    self.prove(&hand)?;
                }
                if desk.proof == Proof::ReadBack {
                    hand.digest_stored();
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
                work.done(&hand.load.batch);
                match desk.write_out {
                    WriteOut::Begun(behind) => behind.follow(file_bytes)?,
                    WriteOut::Followed(follower) => {
                        follower.written(hand.load.batch.number, hand.stored(&placed), work);
                    }
                }
                free.extend(full.pop_front().map(|hand| self.empty(hand, desk)));
            }
            if at_the_end || work.is_stopped() {
                return Ok(());
            }
        }
    }

    fn next<I>(&mut self, work: &Work<I>, desk: &Desk<'_, '_>) -> Result<Option<Load>>
    where
        I: Iterator<Item = Result<Piece>>,
    {
        if let Source::Loaded(loader) = desk.source {
            return Ok(loader.next(work));
        }
        let Some(batch) = work.next()? else {
            return Ok(None);
        };
        let mut bytes = self.memory.pop().unwrap_or_else(loader::room);
        if let Some(reader) = &mut self.reader {
            let room = bytes.get(batch.pieces.len() as u64 * CLUSTER_BYTES);
            reader.read(&batch.pieces, room)?;
        }
        Ok(Some(Load { batch, bytes }))
    }

    /// A hand that can take another batch.
    fn empty(&mut self, mut hand: Hand, desk: &Desk<'_, '_>) -> Hand {
        let Load { bytes, .. } = std::mem::take(&mut hand.load);
        match desk.source {
            Source::Loaded(loader) => loader.give_back(bytes),
            Source::Stored(_) => self.memory.push(bytes),
        }
        hand
    }

    fn compress(&mut self, hand: &mut Hand) {
        let streams = &mut hand.streams;
        hand.items.clear();
        let mut used = 0;
        let Load { batch, bytes } = &hand.load;
        let clusters = bytes.bytes().chunks(cluster_len());
        for ((piece, cluster), at) in batch.pieces.iter().zip(clusters).zip(0..) {
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

    /// Decodes what was encoded.
    fn prove(&mut self, hand: &Hand) -> Result<()> {
        for (number, at, found) in &hand.items {
            if let Found::Stream { .. } = found {
                let decoded = self.decoder.decode(hand.bytes_of(found), &mut self.decoded);
                if decoded.is_err() || self.decoded != hand.cluster(*at) {
                    return Err(not_proven(*number));
                }
            }
        }
        Ok(())
    }

    /// Writes the batch, what lies together in one piece.
    fn write(&self, hand: &Hand, places: &[u64]) -> Result<()> {
        let mut run: Option<(u64, &[u8], Range<usize>)> = None;
        for ((_, _, found), place) in hand.items.iter().zip(places) {
            let (source, range) = match found {
                Found::Plain(range) => (hand.load.bytes.bytes(), range.clone()),
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
    use super::super::pieces::Place;
    use super::*;

    #[test]
    fn a_stream_that_does_not_decode_to_its_cluster_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        let mut packer = Packer::new(&Source::Stored(&file), &file, Some(Effort::USUAL)).unwrap();
        let mut hand = Hand::new();
        hand.load.batch.pieces = vec![Piece {
            cluster: 7,
            place: Place::Plain(0),
        }];
        let text = (0..=250).cycle().step_by(7);
        hand.load.bytes = loader::room();
        let cluster = hand.load.bytes.get(CLUSTER_BYTES);
        cluster
            .iter_mut()
            .zip(text)
            .for_each(|(byte, of)| *byte = of);
        packer.compress(&mut hand);
        assert_eq!(hand.items.len(), 1);
        packer.prove(&hand).unwrap();
        // As memory that forgets would do it.
        for at in 4..40 {
            hand.streams[at] ^= 1;
            let error = packer.prove(&hand).expect_err(&format!("byte {at}"));
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            hand.streams[at] ^= 1;
        }
        hand.load.bytes.get(CLUSTER_BYTES)[100] ^= 1;
        packer.prove(&hand).unwrap_err();
    }
}

//! What is in a packed image, as it is stored: read back through its tables, without decoding it.
//!
//! The digest is, as that of the data, over each allocated cluster's number and the hash of its bytes, in the order of the disk; but
//! of the bytes that are stored for it.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pool::Result;

use super::ahead::Ahead;
use super::crew::{How, Patience, Turns, share};
use super::pieces::{Piece, PieceReader};
use crate::data_digest::Sum;
use crate::digest::ClusterHash;
use crate::packed::PackedImage;

/// How many batches one who hashes may be ahead of the others.
const HASHED: usize = 16;
/// What was read leaves the page cache in pieces of so many bytes: each time, the kernel waits for all processors.
const FORGOTTEN_AT_ONCE: u64 = 8 << 20;

/// The digest of what is stored in an image, made by all processors. What was read does not stay in the page cache.
///
/// # Errors
/// `Corrupt` when a stream has no end; those of the watch; `Io`.
pub(crate) fn stored_digest(
    image: &File,
    source: &PackedImage<'_>,
    how: How<'_>,
) -> Result<String> {
    let sum = Turns::new(Sum::default());
    share(Ahead::new(image, source.pieces()), how, |work| {
        let mut reader = PieceReader::new(image);
        // What waits for its turn.
        let mut hashed = VecDeque::with_capacity(HASHED);
        let mut read = 0..0;
        loop {
            let batch = work.next()?;
            let at_the_end = batch.is_none();
            if let Some(batch) = batch {
                let mut hashes = Vec::with_capacity(batch.pieces.len());
                reader.stored(&batch.pieces, |cluster, bytes| {
                    hashes.push(ClusterHash::new(cluster, bytes));
                })?;
                read = span(&read, &batch.pieces);
                if read.end - read.start >= FORGOTTEN_AT_ONCE {
                    forget(image, &read);
                    read = 0..0;
                }
                work.done(&batch);
                hashed.push_back((batch.number, hashes));
            }
            while let Some((number, hashes)) = hashed.front() {
                let patience = Patience::of(at_the_end || hashed.len() == HASHED);
                let added = sum.take(*number, patience, work, |sum| {
                    hashes.iter().for_each(|hash| sum.add(hash));
                    Ok(())
                })?;
                if added.is_none() {
                    break;
                }
                let _added = hashed.pop_front();
            }
            if at_the_end || work.is_stopped() {
                return Ok(());
            }
        }
    })?;
    forget(image, &(0..u64::MAX));
    Ok(sum.into_inner().finish())
}

/// What was read before, and what of these pieces.
fn span(before: &Range<u64>, pieces: &[Piece]) -> Range<u64> {
    let before = Some(before.clone()).filter(|range| !range.is_empty());
    let ranges = before
        .into_iter()
        .chain(pieces.iter().map(|piece| piece.place.range()));
    let all = ranges.reduce(|one, other| one.start.min(other.start)..one.end.max(other.end));
    all.unwrap_or_default()
}

fn forget(image: &File, range: &Range<u64>) {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let length = number(range.end - range.start);
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    if let Err(errno) = posix_fadvise(image, number(range.start), length, advice) {
        tracing::debug!(%errno, "advice on cached pages of a packed image was refused");
    }
}

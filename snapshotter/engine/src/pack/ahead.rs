//! Reading ahead: the kernel is told what will be read next, in the order in which it is handed out.
//!
//! Its own guess is made for one reader of a file without holes; here each processor reads another part of it.

use std::collections::VecDeque;
use std::fs::File;
use std::iter::Fuse;
use std::ops::Range;

use pool::Result;

use super::pieces::{BATCH, Piece};
use crate::advice;

/// So many clusters are on their way before they are handed out: 4 MiB in the page cache.
const AHEAD: usize = 64;

/// See the module.
pub(crate) struct Ahead<'f, I> {
    image: &'f File,
    pieces: Fuse<I>,
    announced: VecDeque<Result<Piece>>,
}

impl<'f, I: Iterator<Item = Result<Piece>>> Ahead<'f, I> {
    pub(crate) fn new(image: &'f File, pieces: I) -> Self {
        Self {
            image,
            pieces: pieces.fuse(),
            announced: VecDeque::with_capacity(AHEAD + BATCH),
        }
    }

    fn announce(&mut self) {
        let more: Vec<_> = self.pieces.by_ref().take(BATCH).collect();
        let places = more.iter().flatten().map(|piece| piece.place.range());
        runs(places).for_each(|run| advice::will_need(self.image, &run));
        self.announced.extend(more);
    }
}

impl<I: Iterator<Item = Result<Piece>>> Iterator for Ahead<'_, I> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.announced.len() <= AHEAD {
            self.announce();
        }
        self.announced.pop_front()
    }
}

/// Ranges that touch or overlap in one piece.
fn runs(ranges: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = Range<u64>> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut run = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| (run.start..=run.end).contains(&next.start)) {
            run.end = run.end.max(next.end);
        }
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use pool::{Error, ErrorKind};

    use super::super::pieces::Place;
    use super::*;

    #[test]
    fn all_pieces_come_out_in_their_order_and_errors_in_their_place() {
        let file = tempfile::tempfile().unwrap();
        for count in [0, 1, BATCH, AHEAD, AHEAD + 1, 3 * AHEAD + 5] {
            let pieces = (0..count).map(|number| {
                if number == 7 {
                    return Err(Error::new(ErrorKind::Io, "unreadable"));
                }
                Ok(Piece {
                    cluster: number as u64,
                    place: Place::Plain(number as u64 * 65536),
                })
            });
            let found: Vec<_> = Ahead::new(&file, pieces)
                .map(|piece| piece.map_or(7, |piece| piece.cluster))
                .collect();
            assert_eq!(found, (0..count as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_lies_together_is_announced_in_one_piece() {
        let found = |ranges: &[Range<u64>]| runs(ranges.iter().cloned()).collect::<Vec<_>>();
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[0..4, 4..8, 9..10, 9..12]), [0..8, 9..12]);
        // Backwards is another piece.
        assert_eq!(found(&[8..12, 0..8]), [8..12, 0..8]);
    }
}

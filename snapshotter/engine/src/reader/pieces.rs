//! Numbers read here and there in a file, a few pages of which are kept in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pool::{Context, Result};

use crate::data_map::DataRuns;

/// As much as is read at once: small, so that an image cannot make us read much for one number.
const PIECE: usize = 4096;

/// See the module. Each piece has one slot that it can be in.
#[derive(Debug)]
pub(crate) struct Pieces<'f> {
    file: &'f File,
    slots: Vec<Slot>,
}

#[derive(Clone, Debug)]
struct Slot {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl<'f> Pieces<'f> {
    /// Keeps `slots` pieces of 4 KiB.
    pub(crate) fn new(file: &'f File, slots: usize) -> Self {
        let slot = Slot {
            number: None,
            bytes: vec![0; PIECE],
        };
        Self {
            file,
            slots: vec![slot; slots.max(1)],
        }
    }

    /// The big-endian number of `width` bytes at `offset`, which is a multiple of `width`: 1, 2, 4 or 8. What is behind
    /// the end of the file is zero.
    pub(crate) fn number(&mut self, offset: u64, width: usize) -> Result<u64> {
        let number = offset / PIECE as u64;
        let at = usize::try_from(offset % PIECE as u64).unwrap_or(0);
        let slot = self.slot(number);
        let slot = &mut self.slots[slot];
        if slot.number != Some(number) {
            slot.number = None;
            fill(self.file, number * PIECE as u64, &mut slot.bytes)?;
            slot.number = Some(number);
        }
        let bytes = slot.bytes.iter().skip(at).take(width);
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl Pieces<'_> {
    /// Where the first of the numbers of 8 bytes from `start` to before `end` stands that is not zero; `end` if all are. Holes are
    /// not read: what takes no space takes no time.
    pub(crate) fn first_set(&mut self, start: u64, end: u64) -> Result<u64> {
        let mut at = start;
        while at < end {
            if !self.has(at) {
                let data = DataRuns::new(self.file, at, end - at).next().transpose()?;
                // A number whose first bytes are a hole may have others that are not.
                at = data.map_or(end, |run| at + run.start / 8 * 8);
            }
            let piece_end = (at / PIECE as u64 + 1) * PIECE as u64;
            while at < piece_end.min(end) {
                if self.number(at, 8)? != 0 {
                    return Ok(at);
                }
                at += 8;
            }
        }
        Ok(end)
    }

    /// Whether the piece with this byte is in memory.
    fn has(&self, offset: u64) -> bool {
        let number = offset / PIECE as u64;
        self.slots[self.slot(number)].number == Some(number)
    }

    fn slot(&self, number: u64) -> usize {
        usize::try_from(number % self.slots.len() as u64).unwrap_or(0)
    }
}

/// Reads `bytes` from byte `offset` of `file`; what is behind its end reads as zero.
pub(crate) fn fill(file: &File, offset: u64, bytes: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error).context_with(|| format!("read the image at byte {offset}"));
            }
        }
    }
    bytes[done..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_number_that_is_set_is_found_beyond_holes_and_zeroes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let set = |at: u64| file.write_all_at(&7u64.to_be_bytes(), at).unwrap();
        // Zeroes that are data.
        file.write_all_at(&[0; 3 * PIECE], 1 << 20).unwrap();
        set((1 << 20) + 2 * PIECE as u64 + 8);
        set((1 << 39) - 8);
        let mut pieces = Pieces::new(&file, 2);
        let mut first = |start, end| pieces.first_set(start, end).unwrap();
        let (one, other) = ((1 << 20) + 2 * PIECE as u64 + 8, (1 << 39) - 8);
        assert_eq!(first(0, 1 << 40), one);
        assert_eq!(first(one, 1 << 40), one);
        assert_eq!(first(one + 8, 1 << 40), other);
        assert_eq!(first(one + 8, other), other);
        assert_eq!(first(other + 8, 1 << 40), 1 << 40);
        assert_eq!(first(0, 0), 0);
        assert_eq!(first(1 << 40, 1 << 41), 1 << 41);
    }
}

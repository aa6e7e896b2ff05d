//! Numbers read here and there in a file, a few pages of which are kept in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use pool::{Context, Result};

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
        let slot = usize::try_from(number % self.slots.len() as u64).unwrap_or(0);
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

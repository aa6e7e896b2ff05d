//! Writing all of a volume as a guest does: through its device, with direct I/O.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::chance::Random;
use crate::content;

/// Alignment that direct I/O accepts everywhere.
const ALIGN: usize = 4096;

/// Opens a device for writing past the page cache.
///
/// # Errors
/// The kernel's.
pub fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(device)
}

/// Writes every byte of the device at `device` once, in pieces of `piece` bytes in an order of chance, none of them zeros.
///
/// # Errors
/// The kernel's, as the guest would see it.
pub fn all(device: &Path, piece: usize, random: &mut Random) -> io::Result<()> {
    let bytes = content::size_of(device);
    let file = open(device)?;
    let count = bytes / piece as u64;
    assert!(
        count * piece as u64 == bytes,
        "pieces of {piece} do not fill {bytes}"
    );
    let mut memory = content::pattern(&random.within(0..1 << 40).to_string(), piece + ALIGN);
    let start = memory.as_ptr().align_offset(ALIGN);
    let buffer = &mut memory[start..start + piece];
    // A step that has no factor in common with the count meets every piece once.
    let step = (random.within(0..count) * 2 + 1..).find(|step| common(*step, count) == 1);
    let step = step.expect("some step fits");
    for number in 0..count {
        let place = number * step % count;
        buffer[..8].copy_from_slice(&(place | 1 << 63).to_le_bytes());
        file.write_all_at(buffer, place * piece as u64)?;
    }
    file.sync_all()
}

/// The greatest common factor.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(48 << 12).unwrap();
        all(file.path(), 1 << 12, &mut Random::new(7)).unwrap();
        for at in 0..48 {
            assert_ne!(content::read_at(file.path(), at << 12, 4096), vec![0; 4096]);
        }
    }
}

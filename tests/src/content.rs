//! Bytes that can be recognised: written, read back and compared.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read or written at once.
const CHUNK: usize = 1 << 20;

/// `length` bytes that only `seed` makes, none of them a run of zeros.
#[must_use]
pub fn pattern(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Writes `bytes` at `offset` of a file or device, and syncs.
#[track_caller]
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    file.write_all_at(bytes, offset)
        .unwrap_or_else(|error| panic!("write {} at {offset}: {error}", path.display()));
    file.sync_all()
        .unwrap_or_else(|error| panic!("sync {}: {error}", path.display()));
}

/// Reads `length` bytes at `offset` of a file or device.
#[track_caller]
#[must_use]
pub fn read_at(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let file = open(path);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)
        .unwrap_or_else(|error| panic!("read {} at {offset}: {error}", path.display()));
    bytes
}

/// The size of a file or of a block device.
#[track_caller]
#[must_use]
pub fn size_of(path: &Path) -> u64 {
    open(path)
        .seek(SeekFrom::End(0))
        .unwrap_or_else(|error| panic!("seek {}: {error}", path.display()))
}

/// A digest over everything in a file or device.
#[track_caller]
#[must_use]
pub fn digest(path: &Path) -> String {
    digest_of(path, 0, size_of(path))
}

/// A digest over `length` bytes from `offset`.
#[track_caller]
#[must_use]
pub fn digest_of(path: &Path, offset: u64, length: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    each_chunk(path, offset, length, |_at, bytes| {
        let _same = hasher.update(bytes);
    });
    hasher.finalize().to_hex().to_string()
}

/// The first byte from `offset` on that is not zero.
#[track_caller]
#[must_use]
pub fn first_not_zero(path: &Path, offset: u64, length: u64) -> Option<u64> {
    let mut found = None;
    let zeros = vec![0; CHUNK];
    each_chunk(path, offset, length, |at, bytes| {
        // Comparing whole chunks is fast in a debug build too; looking at each byte is not.
        if found.is_none() && bytes != &zeros[..bytes.len()] {
            let within = bytes.iter().position(|byte| *byte != 0);
            found = within.map(|within| at + within as u64);
        }
    });
    found
}

/// The first place from `offset` on where `canary` begins, which has no zero byte.
#[track_caller]
#[must_use]
pub fn find(path: &Path, canary: &[u8], offset: u64, length: u64) -> Option<u64> {
    let mut found = None;
    let mut tail: Vec<u8> = Vec::new();
    let zeros = vec![0; CHUNK];
    each_chunk(path, offset, length, |at, bytes| {
        if found.is_some() {
            return;
        }
        if bytes == &zeros[..bytes.len()] {
            tail.clear();
            return;
        }
        let start = at - tail.len() as u64;
        tail.extend_from_slice(bytes);
        found = tail
            .windows(canary.len())
            .position(|window| window == canary)
            .map(|within| start + within as u64);
        let keep = tail.len().saturating_sub(canary.len() - 1);
        let _done = tail.drain(..keep);
    });
    found
}

#[track_caller]
fn each_chunk(path: &Path, offset: u64, length: u64, mut look: impl FnMut(u64, &[u8])) {
    let mut file = open(path);
    let _at = file.seek(SeekFrom::Start(offset)).expect("seek");
    let mut bytes = vec![0; CHUNK];
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).map_or(CHUNK, |left| left.min(CHUNK));
        file.read_exact(&mut bytes[..want]).unwrap_or_else(|error| {
            panic!("read {} at {}: {error}", path.display(), offset + done)
        });
        look(offset + done, &bytes[..want]);
        done += want as u64;
    }
}

#[track_caller]
fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_across_two_chunks_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut bytes = vec![0; 2 * CHUNK];
        bytes[CHUNK - 3..CHUNK + 3].copy_from_slice(b"canary");
        std::fs::write(&path, &bytes).unwrap();
        let all = bytes.len() as u64;
        assert_eq!(find(&path, b"canary", 0, all), Some(CHUNK as u64 - 3));
        assert_eq!(find(&path, b"parrot", 0, all), None);
        assert_eq!(first_not_zero(&path, 0, all), Some(CHUNK as u64 - 3));
    }
}

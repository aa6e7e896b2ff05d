//! Data that can be recognised: a stream that a seed determines, files of it, and their checksums.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::figures::MIB;
use crate::worker::Wanted;

/// Bytes written or read at once.
const PIECE_BYTES: usize = 1 << 20;

/// Pseudo-random bytes (xorshift64*), which no storage can make smaller.
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state that the generator never leaves.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, piece: &mut [u8]) {
        for word in piece.chunks_exact_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            word.copy_from_slice(&self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
    }
}

/// Writes `bytes` (whole MiB) of the stream of `seed` to `device` at `offset`, and makes them durable.
pub(crate) fn write_at(
    device: &Path,
    offset: u64,
    bytes: u64,
    seed: u64,
    wanted: &Wanted,
) -> Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    let mut stream = Stream::new(seed);
    let mut piece = vec![0; PIECE_BYTES];
    for at in pieces(offset, bytes) {
        wanted.check()?;
        stream.fill(&mut piece);
        file.write_all_at(&piece, at)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Compares what is on `device` with what [`write_at`] put there.
///
/// # Errors
/// Names the first MiB that differs.
pub(crate) fn compare_at(
    device: &Path,
    offset: u64,
    bytes: u64,
    seed: u64,
    wanted: &Wanted,
) -> Result<()> {
    let file = File::open(device)?;
    let mut stream = Stream::new(seed);
    let (mut expected, mut found) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for at in pieces(offset, bytes) {
        wanted.check()?;
        stream.fill(&mut expected);
        file.read_exact_at(&mut found, at)?;
        if found != expected {
            bail!("the data differs in MiB {} of the disk", at / MIB);
        }
    }
    Ok(())
}

fn pieces(offset: u64, bytes: u64) -> impl Iterator<Item = u64> {
    (offset..offset + bytes).step_by(PIECE_BYTES)
}

/// Writes `count` files of `bytes` (whole MiB) each into `folder`, and makes them durable.
pub(crate) fn write_files(
    folder: &Path,
    count: u64,
    bytes: u64,
    seed: u64,
    wanted: &Wanted,
) -> Result<()> {
    let mut stream = Stream::new(seed);
    let mut piece = vec![0; PIECE_BYTES];
    for number in 0..count {
        let mut file = File::create(folder.join(format!("file-{number:03}")))?;
        for _at in pieces(0, bytes) {
            wanted.check()?;
            stream.fill(&mut piece);
            file.write_all(&piece)?;
        }
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// The checksum of every file in `folder`.
pub(crate) fn checksums(folder: &Path, wanted: &Wanted) -> Result<BTreeMap<String, blake3::Hash>> {
    let mut sums = BTreeMap::new();
    let mut piece = vec![0; PIECE_BYTES];
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut file = File::open(entry.path()).with_context(|| name.clone())?;
        let mut hasher = blake3::Hasher::new();
        loop {
            wanted.check()?;
            let read = file.read(&mut piece).with_context(|| name.clone())?;
            if read == 0 {
                break;
            }
            let _same = hasher.update(&piece[..read]);
        }
        let _new = sums.insert(name, hasher.finalize());
    }
    Ok(sums)
}

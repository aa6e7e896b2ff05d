//! Bytes to write, and files to compare.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

const STEP: u64 = 1 << 20;

/// Bytes that look random, are never all zero, and differ for each place and seed.
pub(crate) fn noise(seed: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut state = (seed ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    // A piece of one byte must not be zero by chance.
    if let Some(first) = bytes.first_mut() {
        *first |= 1;
    }
    bytes
}

/// Fills a part of a file with noise.
pub(crate) fn fill(file: &File, seed: u64, offset: u64, length: u64) {
    let mut done = 0;
    while done < length {
        let step = STEP.min(length - done);
        let bytes = noise(seed, offset + done, usize::try_from(step).unwrap());
        file.write_all_at(&bytes, offset + done).unwrap();
        done += step;
    }
}

/// Asserts that `length` bytes of `a` from `a_offset` are those of `b` from `b_offset`. Reads what is data in either of
/// them, so that it takes no longer for a large disk with little in it.
pub(crate) fn assert_same(a: (&File, u64), b: (&File, u64), length: u64) {
    compare_data(a, b, length);
    compare_data(b, a, length);
}

/// Asserts that a part of a file reads as zero.
pub(crate) fn assert_zero(file: &File, offset: u64, length: u64) {
    for_each_data(file, offset, length, |at, step| {
        let bytes = read(file, offset + at, step);
        let stray = bytes.iter().position(|byte| *byte != 0);
        assert_eq!(stray, None, "not zero behind byte {}", offset + at);
    });
}

fn compare_data(a: (&File, u64), b: (&File, u64), length: u64) {
    for_each_data(a.0, a.1, length, |at, step| {
        let (ours, theirs) = (read(a.0, a.1 + at, step), read(b.0, b.1 + at, step));
        assert!(ours == theirs, "differs behind byte {at} of the disk");
    });
}

fn read(file: &File, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn for_each_data(file: &File, offset: u64, length: u64, mut visit: impl FnMut(u64, u64)) {
    let end = offset + length;
    let mut next = offset;
    while let Some(start) = seek(file, next, Whence::SeekData).filter(|start| *start < end) {
        next = seek(file, start, Whence::SeekHole).unwrap().min(end);
        for at in (start..next).step_by(usize::try_from(STEP).unwrap()) {
            visit(at - offset, STEP.min(next - at));
        }
    }
}

fn seek(file: &File, from: u64, whence: Whence) -> Option<u64> {
    match lseek(file, i64::try_from(from).unwrap(), whence) {
        Ok(found) => Some(u64::try_from(found).unwrap()),
        Err(Errno::ENXIO) => None,
        Err(errno) => panic!("lseek: {errno}"),
    }
}

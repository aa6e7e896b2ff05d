//! What the kernel is told of a file's pages in its cache. It is advice: nothing depends on it but how fast things go.

use std::fs::File;
use std::ops::Range;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// All of a file.
pub(crate) const ALL: Range<u64> = 0..u64::MAX;

/// These bytes will soon be read.
pub(crate) fn will_need(file: &File, bytes: &Range<u64>) {
    advise(file, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

/// Nobody needs these bytes soon: what of them is on the disk may leave the cache, which is the guests'.
pub(crate) fn forget(file: &File, bytes: &Range<u64>) {
    advise(file, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn advise(file: &File, bytes: &Range<u64>, advice: PosixFadviseAdvice) {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let length = bytes.end.saturating_sub(bytes.start);
    // Of no bytes the kernel would think that all are meant.
    if length == 0 {
        return;
    }
    if let Err(errno) = posix_fadvise(file, number(bytes.start), number(length), advice) {
        tracing::debug!(%errno, ?advice, ?bytes, "advice on cached pages was refused");
    }
}

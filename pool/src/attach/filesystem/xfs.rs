//! XFS: how it is made.

/// mkfs.xfs makes no smaller one.
pub(super) const LEAST_BYTES: u64 = 300 << 20;

/// The arguments of `mkfs.xfs`.
///
/// - `-f`: the image is blank or holds what an interrupted run of ourselves left.
/// - `-K`: nothing to discard, and it would take the blocks of a thick volume.
/// - `-s size=512`: the sector size of our devices, also where the disk below has 4096.
pub(super) fn make_arguments() -> Vec<String> {
    ["-f", "-q", "-K", "-s", "size=512"]
        .map(str::to_owned)
        .to_vec()
}

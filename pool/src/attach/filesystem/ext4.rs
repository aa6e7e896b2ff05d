//! ext4: how it is made and checked.

use crate::attach::tool;
use crate::error::{Error, ErrorKind, Result};

const MIB: u64 = 1 << 20;
/// With the arguments below mkfs.ext4 makes no journal on less than 8 MiB and says so in passing, and fails on 8 MiB.
pub(super) const LEAST_BYTES: u64 = 10 * MIB;

/// The arguments of `mkfs.ext4` for an image of `bytes`.
///
/// - `-m 0`: no blocks kept for root; the pool keeps its own reserve. `-i 65536`: one inode for 64 KiB. Both, and the
///   journal by [`journal_mib`], so that a volume of 1.06 times a disk image holds that image.
/// - `-b 4096`: smaller blocks, the default of small volumes, would make the pool's filesystem read before it writes.
/// - Inode tables and journal are marked as zeroed (`lazy_*_init=0`), which costs nothing on the holes of an image, and
///   spares the kernel thread that would write real zeroes into every sparse volume after its first mount.
/// - `nodiscard`: there is nothing to discard, and it would take the blocks of a thick volume.
pub(super) fn make_arguments(bytes: u64) -> Vec<String> {
    let journal = format!("size={}", journal_mib(bytes));
    [
        "-F",
        "-q",
        "-b",
        "4096",
        "-I",
        "256",
        "-m",
        "0",
        "-i",
        "65536",
        "-J",
        &journal,
        "-E",
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The size of the journal in MiB: about 1 % of the volume, at least the 1024 blocks that ext4 needs, at most 128.
fn journal_mib(bytes: u64) -> u64 {
    let percent = (bytes / MIB / 100).max(1);
    percent.next_power_of_two().clamp(4, 128)
}

/// What the exit code of `e2fsck -p` means (`e2fsck(8)`).
pub(super) fn judge_check(outcome: &tool::Outcome, device: &str) -> Result<()> {
    match outcome.code {
        // 1: errors were repaired. 2: a reboot is advised, for a root filesystem that is mounted.
        Some(0..=3) => Ok(()),
        // 4: damage that needs a person. 8: it cannot even start, mostly because there is no superblock.
        Some(code) if code & (4 | 8) != 0 => Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the ext4 filesystem on {device} cannot be repaired without a decision, so it was not mounted; keep a copy of disk.img, \
                 then run by hand: e2fsck -f {device} (exit code {code}: {})",
                outcome.output
            ),
        )),
        code => Err(Error::new(
            ErrorKind::Io,
            format!("e2fsck -p {device} ended with {code:?}: {}", outcome.output),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_a_power_of_two_near_one_percent() {
        let table = [
            (10, 4),
            (256, 4),
            (512, 8),
            (1024, 16),
            (10_240, 128),
            (102_400, 128),
        ];
        for (volume, journal) in table {
            assert_eq!(journal_mib(volume * MIB), journal, "{volume} MiB");
        }
    }

    #[test]
    fn repaired_goes_on_and_damaged_says_what_to_run() {
        let outcome = |code| tool::Outcome {
            code,
            output: "words".into(),
        };
        for good in [0, 1, 2, 3] {
            judge_check(&outcome(Some(good)), "/dev/loop1").unwrap();
        }
        for bad in [4, 5, 8, 12] {
            let error = judge_check(&outcome(Some(bad)), "/dev/loop1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(
                error.to_string().contains("e2fsck -f /dev/loop1"),
                "{error}"
            );
        }
        for broken in [Some(16), Some(32), Some(128), None] {
            let error = judge_check(&outcome(broken), "/dev/loop1").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
        }
    }
}

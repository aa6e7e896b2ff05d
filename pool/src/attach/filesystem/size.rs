//! What the superblock of a filesystem of ours says: whether its device outgrew it, and whether mkfs did what it was asked.
//! Nothing else is read from it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Context, Result};
use crate::record::FsType;

/// The start of both superblocks fits in here: XFS's at byte 0, ext4's at byte 1024.
const PREFIX: usize = 2048;
const EXT4_AT: usize = 1024;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of the filesystem.
    pub(super) bytes: u64,
    /// Bytes in a block.
    pub(super) block_bytes: u64,
    /// The kernel or fsck found errors that were not repaired.
    pub(super) damaged: bool,
}

/// The size of the filesystem on `device`; `None` when there is no such superblock. For ext4 this is also right while
/// it is mounted, because the kernel keeps its superblock in the device's own cache.
pub(super) fn read(device: &File, fs: FsType) -> Result<Option<Size>> {
    let mut prefix = [0; PREFIX];
    device
        .read_exact_at(&mut prefix, 0)
        .during("read the superblock")?;
    Ok(match fs {
        FsType::Ext4 => ext4(&prefix[EXT4_AT..]),
        FsType::Xfs => xfs(&prefix),
    })
}

/// Whether the ext4 that mkfs has just made in `image` has a journal.
pub(super) fn has_journal(image: &File) -> Result<bool> {
    /// In the superblock's set of compatible features.
    const HAS_JOURNAL: u8 = 4;
    const FEATURES_AT: u64 = 0x5c;
    let mut features = [0];
    image
        .read_exact_at(&mut features, EXT4_AT as u64 + FEATURES_AT)
        .during("read the superblock")?;
    Ok(features[0] & HAS_JOURNAL != 0)
}

fn ext4(superblock: &[u8]) -> Option<Size> {
    const ERROR_STATE: u16 = 2;
    const FEATURE_64_BIT: u32 = 0x80;
    if superblock.get(0x38..0x3a)? != [0x53, 0xef] {
        return None;
    }
    let low = little(superblock, 0x04)?;
    let wide = little(superblock, 0x60)? & FEATURE_64_BIT != 0;
    let high = if wide { little(superblock, 0x150)? } else { 0 };
    let blocks = u64::from(high) << 32 | u64::from(low);
    let block_bytes = 1024_u64.checked_shl(little(superblock, 0x18)?)?;
    let state = u16::from_le_bytes(superblock.get(0x3a..0x3c)?.try_into().ok()?);
    Some(Size {
        bytes: blocks.checked_mul(block_bytes)?,
        block_bytes,
        damaged: state & ERROR_STATE != 0,
    })
}

fn xfs(superblock: &[u8]) -> Option<Size> {
    if superblock.get(..4)? != b"XFSB" {
        return None;
    }
    let block_bytes = u64::from(u32::from_be_bytes(superblock.get(4..8)?.try_into().ok()?));
    let blocks = u64::from_be_bytes(superblock.get(8..16)?.try_into().ok()?);
    Some(Size {
        bytes: blocks.checked_mul(block_bytes)?,
        block_bytes,
        damaged: false,
    })
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), PREFIX)) {
            let _size = (ext4(&bytes), xfs(&bytes));
            bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            bytes[..4].copy_from_slice(b"XFSB");
            let _size = (ext4(&bytes), xfs(&bytes));
        }
    }

    #[test]
    fn zeroes_are_no_filesystem() {
        assert_eq!((ext4(&[0; PREFIX]), xfs(&[0; PREFIX])), (None, None));
    }
}

//! A disk that does not give one block, and gives it again: a real error of the kernel, below everything that is ours.
//!
//! ```text
//! pool on ext4 or XFS ─ loop ─> filesystem.img on Btrfs, which knows each block's checksum ─ loop ─> a file, in which a byte is changed
//! ```
//! Btrfs answers EIO for a block whose checksum is wrong, for that block alone, and writes all others.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::scratch_fs::{FsKind, GIB, ScratchFs};
use crate::tools;

const SECTOR: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub struct BadDisk {
    below: ScratchFs,
}

/// A block that cannot be read until this goes, or is healed.
#[derive(Debug)]
#[must_use]
pub struct BadBlock {
    file: PathBuf,
    /// What has to forget it before it is seen that it is well again.
    cached: Vec<PathBuf>,
    at: u64,
}

impl BadDisk {
    /// A disk for one filesystem of up to 6 GiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            below: ScratchFs::new(FsKind::Btrfs, 8 * GIB),
        }
    }

    /// The filesystem on it.
    #[must_use]
    pub fn filesystem(&self, kind: FsKind, bytes: u64) -> ScratchFs {
        ScratchFs::on_disk(&self.below.mount_point(), kind, bytes)
    }

    /// From now on the block of `file`, which lies on the disk's filesystem, with byte `offset` cannot be read.
    #[track_caller]
    pub fn spoil(&self, file: &Path, offset: u64) -> BadBlock {
        let image = self.below.mount_point().join("filesystem.img");
        sync(file);
        sync(&image);
        let in_image = place(file, offset);
        let logical = place(&image, in_image);
        let at = self.physical(logical);
        let bad = BadBlock {
            file: self.below.folder().join("filesystem.img"),
            cached: vec![image, file.to_owned()],
            at,
        };
        bad.flip();
        bad
    }

    /// Where an address of Btrfs lies on its device.
    #[track_caller]
    fn physical(&self, logical: u64) -> u64 {
        let device = self.below.device().to_str().expect("a plain path");
        // It knows whole sectors.
        let sector = (logical / SECTOR * SECTOR).to_string();
        let said = tools::run("btrfs-map-logical", &["-l", &sector, device]);
        let physical = said
            .split_whitespace()
            .skip_while(|word| *word != "physical");
        let number = physical.skip(1).find_map(|word| word.parse().ok());
        let sector: u64 = number.unwrap_or_else(|| panic!("no place in {said:?}"));
        sector + logical % SECTOR
    }
}

impl Default for BadDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl BadBlock {
    /// It can be read again, with what was in it.
    pub fn heal(self) {
        drop(self);
    }

    fn flip(&self) {
        let file = File::options()
            .read(true)
            .write(true)
            .open(&self.file)
            .expect("open the disk");
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)
            .expect("read the disk");
        file.write_all_at(&[byte[0] ^ 0xff], self.at)
            .expect("write the disk");
        file.sync_all().expect("sync the disk");
        for cached in &self.cached {
            // A snapshot may have been deleted meanwhile.
            if let Ok(file) = File::open(cached) {
                forget(&file);
            }
        }
    }
}

impl Drop for BadBlock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.flip();
        }
    }
}

fn sync(path: &Path) {
    let file = File::open(path).expect("open a file");
    nix::unistd::syncfs(&file).expect("sync a filesystem");
}

fn forget(file: &File) {
    let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    posix_fadvise(file, 0, 0, advice).expect("drop cached pages");
}

/// Where the byte `offset` of a file lies on what is below its filesystem.
#[track_caller]
fn place(path: &Path, offset: u64) -> u64 {
    let mut found = None;
    let file = File::open(path).expect("open a file");
    pool::sys::extents(&file, |extent| {
        if (extent.logical..extent.logical + extent.length).contains(&offset) {
            found = extent.physical.map(|start| start + offset - extent.logical);
        }
    })
    .expect("the extents of a file");
    found.unwrap_or_else(|| panic!("byte {offset} of {} has no place", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content;
    use crate::scratch_fs::MIB;

    #[test]
    fn one_block_cannot_be_read_until_it_is_healed() {
        for kind in [FsKind::Ext4, FsKind::Xfs] {
            let disk = BadDisk::new();
            let fs = disk.filesystem(kind, GIB);
            let file = fs.mount_point().join("file");
            std::fs::File::create(&file).unwrap();
            let bytes = content::pattern("bad disk", 8 << 20);
            content::write_at(&file, 0, &bytes);
            let bad = disk.spoil(&file, 5 * MIB + 77);
            let error = std::fs::read(&file).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32));
            assert!(content::read_at(&file, 0, 4 << 20) == bytes[..4 << 20]);
            assert!(content::read_at(&file, 6 * MIB, 2 << 20) == bytes[6 << 20..]);
            content::write_at(&file, 7 * MIB, &[1; 4096]);
            bad.heal();
            assert!(content::read_at(&file, 0, 7 << 20) == bytes[..7 << 20]);
        }
    }
}

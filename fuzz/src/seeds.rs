//! Images made by `qemu-img`, small ones, in every form that the strict reader accepts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How an image is made.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Options of `qemu-img convert -o`.
    pub options: &'static str,
    /// With `-c`.
    pub compress: bool,
    /// The size of the disk in bytes.
    pub bytes: u64,
}

const fn plain(name: &'static str, options: &'static str, bytes: u64) -> Recipe {
    Recipe {
        name,
        options,
        compress: false,
        bytes,
    }
}

const fn compressed(name: &'static str, options: &'static str, bytes: u64) -> Recipe {
    Recipe {
        compress: true,
        ..plain(name, options, bytes)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All of them: cluster sizes, versions, widths of counts, compressions, and disks that end within a cluster.
pub const RECIPES: [Recipe; 14] = [
    plain("512", "cluster_size=512", 40 * KIB),
    plain("512-v2", "cluster_size=512,compat=0.10", 36 * KIB),
    plain("1k-1bit", "cluster_size=1k,refcount_bits=1", 100 * KIB),
    plain("2k-2bit", "cluster_size=2k,refcount_bits=2", 150 * KIB),
    plain(
        "4k-4bit",
        "cluster_size=4k,refcount_bits=4",
        300 * KIB + 512,
    ),
    plain(
        "4k-8bit",
        "cluster_size=4k,refcount_bits=8,preallocation=metadata",
        200 * KIB,
    ),
    plain(
        "16k-32bit",
        "cluster_size=16k,refcount_bits=32,lazy_refcounts=on",
        500 * KIB,
    ),
    plain("64k-64bit", "cluster_size=64k,refcount_bits=64", MIB),
    plain("64k-v2", "cluster_size=64k,compat=0.10", MIB + 3 * KIB),
    plain("2m", "cluster_size=2M", 5 * MIB),
    compressed("zlib-512", "cluster_size=512", 40 * KIB),
    compressed("zlib-4k", "cluster_size=4k", 200 * KIB),
    compressed("zlib-64k-v2", "cluster_size=64k,compat=0.10", MIB),
    compressed("zstd-64k", "cluster_size=64k,compression_type=zstd", MIB),
];

/// The bytes of a disk: data that compresses well, data that does not, zeroes, and a pattern.
#[must_use]
pub fn disk(bytes: u64) -> Vec<u8> {
    let length = usize::try_from(bytes).unwrap_or(0);
    let mut disk = vec![0; length];
    let part = length / 8;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for (at, byte) in disk.iter_mut().enumerate() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = match at / part.max(1) {
            0 | 5 => state.to_le_bytes()[0],
            1 | 6 => state.to_le_bytes()[0] % 4 + b'a',
            3 => 0xff,
            _ => 0,
        };
    }
    disk
}

/// Makes the image of `recipe` in `folder` and returns its path.
#[must_use]
pub fn make(recipe: &Recipe, folder: &Path) -> PathBuf {
    let raw = folder.join(format!("{}.raw", recipe.name));
    let image = folder.join(format!("{}.qcow2", recipe.name));
    let written = File::create(&raw).and_then(|file| file.write_all_at(&disk(recipe.bytes), 0));
    written.expect("write a raw disk");
    let mut command = Command::new("qemu-img");
    let _command = command.args(["convert", "-f", "raw", "-O", "qcow2", "-o", recipe.options]);
    if recipe.compress {
        let _command = command.arg("-c");
    }
    let output = command
        .arg(&raw)
        .arg(&image)
        .output()
        .expect("run qemu-img");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{recipe:?}: {error}");
    image
}

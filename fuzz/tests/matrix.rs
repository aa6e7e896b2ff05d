//! Images by `qemu-img` in all combinations of its options: all accepted, and read as qemu reads them. A sample in every
//! run of the tests, all of them with `make soak`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use fuzz::campaign::compare;
use snapshot_engine::reader::{check, open};

const CLUSTERS: [&str; 13] = [
    "512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M",
];
const COUNTS: [&str; 7] = ["1", "2", "4", "8", "16", "32", "64"];
const ALLOCATIONS: [&str; 4] = ["off", "metadata", "falloc", "full"];
const SHAPES: [Shape; 5] = [
    Shape::Empty,
    Shape::Full,
    Shape::Pieces,
    Shape::Pattern,
    Shape::OddEnd,
];
/// Of so many combinations one is tried in every run. It shares no factor with the number of any option's values.
const STRIDE: usize = 29;

#[derive(Clone, Copy, Debug)]
enum Shape {
    Empty,
    Full,
    /// Data and holes in turns, smaller and larger than a cluster.
    Pieces,
    /// What compresses to nearly nothing.
    Pattern,
    /// A disk that ends with a part of a cluster, and with data.
    OddEnd,
}

#[derive(Debug)]
struct Case {
    options: String,
    compress: bool,
    shape: Shape,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for cluster in CLUSTERS {
        for shape in SHAPES {
            let mut add = |options: String, compress| {
                cases.push(Case {
                    options,
                    compress,
                    shape,
                });
            };
            for counts in COUNTS {
                let common = format!("cluster_size={cluster},compat=1.1,refcount_bits={counts}");
                add(format!("{common},compression_type=zlib"), true);
                add(format!("{common},compression_type=zstd"), true);
                for allocation in ALLOCATIONS {
                    add(format!("{common},preallocation={allocation}"), false);
                }
            }
            let common = format!("cluster_size={cluster},compat=0.10");
            add(common.clone(), true);
            for allocation in ALLOCATIONS {
                add(format!("{common},preallocation={allocation}"), false);
            }
        }
    }
    cases
}

/// Makes a raw disk of this shape.
fn disk(shape: Shape, path: &Path) {
    let file = File::create(path).unwrap();
    let noise: Vec<u8> = fuzz::seeds::disk(96 << 10);
    let bytes = match shape {
        Shape::OddEnd => (3 << 20) + 512 * 5,
        _ => 3 << 20,
    };
    file.set_len(bytes).unwrap();
    match shape {
        Shape::Empty => {}
        Shape::Full => {
            for at in (0..bytes).step_by(noise.len()) {
                file.write_all_at(&noise, at).unwrap();
            }
        }
        Shape::Pieces => {
            for (at, length) in [
                (0, 512),
                (5 << 10, 512),
                (70 << 10, 60 << 10),
                (1 << 20, 96 << 10),
            ] {
                file.write_all_at(&noise[..length], at).unwrap();
            }
        }
        Shape::Pattern => file.write_all_at(&[0xaa; 2 << 20], 1 << 19).unwrap(),
        Shape::OddEnd => file.write_all_at(&noise[..2048], bytes - 2048).unwrap(),
    }
    file.set_len(bytes).unwrap();
}

fn try_case(case: &Case, folder: &Path) {
    let (raw, path) = (folder.join("raw"), folder.join("image.qcow2"));
    disk(case.shape, &raw);
    let mut command = Command::new("qemu-img");
    let _command = command.args(["convert", "-f", "raw", "-O", "qcow2", "-o", &case.options]);
    if case.compress {
        let _command = command.arg("-c");
    }
    let made = command.arg(&raw).arg(&path).output().unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{case:?}: {error}");
    let image = open(&path).unwrap();
    match check(&image) {
        Ok(image) => assert_eq!(image.facts().leaked_clusters, 0, "{case:?}"),
        Err(refused) => panic!("{case:?}: {refused}"),
    }
    compare(&image, folder).unwrap_or_else(|difference| panic!("{case:?}: {difference}"));
}

#[test]
fn every_form_that_qemu_img_writes_is_accepted_and_reads_the_same() {
    let soak = std::env::var_os("VD_SOAK_MINUTES").is_some();
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let stride = if soak { 1 } else { STRIDE };
    for case in cases.iter().step_by(stride) {
        try_case(case, folder.path());
    }
}

#[test]
fn sample_of_the_matrix_has_every_value_of_every_option() {
    let cases = cases();
    let sample: Vec<&Case> = cases.iter().step_by(STRIDE).collect();
    let has = |text: &str| sample.iter().any(|case| case.options.contains(text));
    for cluster in CLUSTERS {
        assert!(has(&format!("cluster_size={cluster},")), "{cluster}");
    }
    for counts in COUNTS {
        assert!(has(&format!("refcount_bits={counts},")), "{counts}");
    }
    for allocation in ALLOCATIONS {
        assert!(has(&format!("preallocation={allocation}")), "{allocation}");
    }
    assert!(has("zlib") && has("zstd") && has("compat=0.10,preallocation"));
    for shape in SHAPES {
        let found = sample
            .iter()
            .any(|case| std::mem::discriminant(&case.shape) == std::mem::discriminant(&shape));
        assert!(found, "{shape:?}");
    }
}

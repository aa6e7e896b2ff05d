//! Everything that ever broke a target, replayed.
#![allow(clippy::unwrap_used, reason = "tests: a panic is how they report")]

use std::path::Path;

use fuzz::targets;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("findings")
        .join(target);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        run(&std::fs::read(path).unwrap());
    }
}

#[test]
fn findings_in_images_stay_fixed() {
    replay("image", targets::image);
}

#[test]
fn findings_in_compressed_data_stay_fixed() {
    replay("decode", targets::decode);
}

#[test]
fn findings_in_records_stay_fixed() {
    replay("record", targets::record);
}

#[test]
fn findings_in_mountinfo_stay_fixed() {
    replay("mountinfo", targets::mountinfo);
}

//! Mutated images by the thousand: some in every run of the tests, a hundred thousand and more with `make soak`.
#![allow(clippy::unwrap_used, reason = "tests: a panic is how they report")]

use std::process::Command;

/// In every run, and of how many accepted ones one is compared with what `qemu-img` reads.
const IMAGES: (u64, u64) = (12_000, 6);
/// In a soak.
const MANY: (u64, u64) = (100_000, 1);

#[test]
fn mutated_images_neither_break_the_reader_nor_read_differently_in_qemu() {
    let soak = std::env::var_os("VD_SOAK_MINUTES").is_some();
    let (images, one_in) = if soak { MANY } else { IMAGES };
    let output = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args([images, 0, one_in].map(|number| number.to_string()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
}

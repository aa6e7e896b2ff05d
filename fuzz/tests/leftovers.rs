//! What is left in an image of a backing file, of internal snapshots and of a larger disk that it once had: accepted, and read as
//! qemu reads it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a panic is how they report"
)]

use std::fs::File;
use std::path::Path;
use std::process::Command;

use fuzz::campaign::compare;
use fuzz::handmade::{COPIED, Handmade};
use snapshot_engine::reader::{Failure, Reason, check, open};

const C: u64 = 65536;
/// An L2 entry that reads as zero and takes no room.
const ZERO: u64 = 1;

/// Accepted, and the same disk for `qemu-img`.
#[track_caller]
fn reads_as_in_qemu(image: &File, folder: &Path) {
    if let Err(refused) = check(image) {
        panic!("{refused}");
    }
    compare(image, folder).unwrap_or_else(|difference| panic!("{difference}"));
}

#[track_caller]
fn refused(image: &File, expected: Reason) {
    match check(image) {
        Err(Failure::Refused(refusal)) => assert_eq!(refusal.reason, expected, "{refusal}"),
        other => panic!("{other:?}"),
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// An image of a raw disk, and the folder it is in.
fn converted(options: &[&str]) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (raw, image) = (path("raw"), path("image"));
    std::fs::File::create(&raw).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &File::options().write(true).open(&raw).unwrap(),
        &fuzz::seeds::disk(3 << 20),
        0,
    )
    .unwrap();
    let files = [raw.as_str(), image.as_str()];
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    run("qemu-img", &[&convert[..], options, &files].concat());
    (folder, raw, image)
}

#[test]
fn an_image_whose_backing_file_was_taken_away_is_accepted() {
    let (folder, raw, image) = converted(&[]);
    for compat in ["compat=0.10", "compat=1.1"] {
        let create = [
            "create", "-q", "-f", "qcow2", "-o", compat, "-F", "raw", "-b",
        ];
        run("qemu-img", &[&create[..], &[&raw, &image]].concat());
        refused(&open(Path::new(&image)).unwrap(), Reason::BackingFile);
        run(
            "qemu-io",
            &["-f", "qcow2", "-c", "write -P 9 1M 100k", &image],
        );
        run("qemu-img", &["rebase", "-f", "qcow2", "-b", "", &image]);
        reads_as_in_qemu(&open(Path::new(&image)).unwrap(), folder.path());
    }
}

/// As older versions of qemu leave it: a place for a name of no bytes, and the format of it.
#[test]
fn a_backing_file_with_an_empty_name_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (mut made, l1) = Handmade::new(16, 3 * C, 1);
    let (table, data) = (made.place(1), made.place(1));
    made.entries(l1, [table | COPIED]);
    made.entries(table, [0, data | COPIED]);
    made.write(data, &[7; 65536]);
    let format = [&0xe279_2aca_u32.to_be_bytes()[..], &[0; 12]].concat();
    made.write(104, &format);
    made.entries(8, [120]);
    reads_as_in_qemu(made.file(), folder.path());
    // Behind the place of the name there is no extension any more, whatever stands there.
    made.write(112, b"DATA\0\0\0\x08");
    made.entries(8, [112]);
    reads_as_in_qemu(made.file(), folder.path());
    made.entries(8, [128]);
    refused(made.file(), Reason::DataFile);
    made.write(112, &[0; 8]);
    made.write(16, &3u32.to_be_bytes());
    refused(made.file(), Reason::BackingFile);
}

#[test]
fn an_image_whose_internal_snapshots_were_deleted_is_accepted() {
    for options in [
        &["-o", "cluster_size=4k"][..],
        &["-o", "compat=0.10"],
        &["-c"],
    ] {
        let (folder, _raw, image) = converted(options);
        for name in ["one", "two"] {
            run("qemu-img", &["snapshot", "-c", name, &image]);
            run(
                "qemu-io",
                &["-f", "qcow2", "-c", "write -P 9 64k 100k", &image],
            );
            refused(&open(Path::new(&image)).unwrap(), Reason::InternalSnapshots);
        }
        for name in ["one", "two"] {
            run("qemu-img", &["snapshot", "-d", name, &image]);
        }
        reads_as_in_qemu(&open(Path::new(&image)).unwrap(), folder.path());
    }
}

/// As `savevm` leaves it when its snapshot was deleted (looked at with qemu 7.2): zeroes behind the disk.
#[test]
fn zeroes_where_the_state_of_a_machine_was_are_accepted_and_anything_else_there_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut made, l1) = Handmade::new(16, 3 * C, 4);
    let [first, second, data] = [made.place(1), made.place(1), made.place(1)];
    made.entries(l1, [first | COPIED, second | COPIED]);
    made.entries(first, [data | COPIED, 0, 0, ZERO]);
    made.write(data, &[7; 65536]);
    made.entries(second, [ZERO; 40]);
    reads_as_in_qemu(made.file(), folder.path());
    let behind = made.place(1);
    for (place, entry) in [
        (first + 3 * 8, behind | COPIED),
        (second + 8, behind | COPIED | ZERO),
        (second, COPIED | 1 << 62 | behind),
    ] {
        let before = if place == second { ZERO } else { 0 };
        made.entries(place, [entry]);
        let reason = if entry & 1 << 62 == 0 {
            Reason::BeyondDisk
        } else {
            Reason::ReservedBits
        };
        refused(made.file(), reason);
        made.entries(place, [before]);
    }
    reads_as_in_qemu(made.file(), folder.path());
}

#[test]
fn an_image_that_was_shrunk_is_accepted() {
    let (folder, _raw, image) = converted(&[]);
    run("qemu-img", &["resize", "-q", "-f", "qcow2", &image, "40G"]);
    let writes = ["-c", "write -P 9 20G 1M", "-c", "write -z 39G 1M"];
    run(
        "qemu-io",
        &[&["-f", "qcow2"][..], &writes, &[image.as_str()]].concat(),
    );
    let shrink = ["resize", "-q", "--shrink", "-f", "qcow2", &image, "2M"];
    run("qemu-img", &shrink);
    reads_as_in_qemu(&open(Path::new(&image)).unwrap(), folder.path());
}

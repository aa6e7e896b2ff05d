//! Many objects at once: copies of a volume and a snapshot that the driver made, under other names.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::records::{self, Record};

/// The id of volume number `number`.
#[must_use]
pub fn volume_id(number: usize) -> String {
    format!("vol-{number:032x}")
}

/// The id of snapshot number `number`.
#[must_use]
pub fn snapshot_id(number: usize) -> String {
    format!("snap-{number:032x}")
}

/// Makes the volumes with the numbers `from..to` as copies of `volume`, and `each` snapshots of every one as copies of
/// `snapshot`. Nobody may serve the pool meanwhile.
#[track_caller]
pub fn copies(pool: &Path, volume: &str, snapshot: &str, from: usize, to: usize, each: usize) {
    let volume_record = Record::read(&records::of_volume(pool, volume));
    let snapshot_record = Record::read(&records::of_snapshot(pool, snapshot));
    let disk = pool.join("volumes").join(volume).join("disk.img");
    let image = pool.join("snapshots").join(snapshot).join("image.qcow2");
    for number in from..to {
        let id = volume_id(number);
        let folder = pool.join("volumes").join(&id);
        let record = volume_record.clone().with("id", id.as_str());
        let record = record.with("name", format!("copy {number}"));
        copy(&folder, &disk, &record.with("lineage", id.as_str()));
        for cut in number * each..(number + 1) * each {
            let cut_id = snapshot_id(cut);
            let folder = pool.join("snapshots").join(&cut_id);
            let record = snapshot_record.clone().with("id", cut_id.as_str());
            let record = record.with("name", format!("copy {cut}"));
            let record = record.with("source_volume", id.as_str());
            copy(&folder, &image, &record.with("lineage", id.as_str()));
        }
    }
}

/// A folder with a copy of an image, which shares its blocks where the filesystem can, and a record.
fn copy(folder: &Path, image: &Path, record: &Record) {
    fs::DirBuilder::new().create(folder).expect("make a folder");
    let secret = Permissions::from_mode(0o700);
    fs::set_permissions(folder, secret).expect("set the folder's mode");
    let name = image.file_name().expect("an image has a name");
    let _bytes = fs::copy(image, folder.join(name)).expect("copy an image");
    let path = folder.join("record");
    fs::write(&path, record.bytes()).expect("write a record");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set the record's mode");
}

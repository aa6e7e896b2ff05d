//! Digests of snapshots' data, made without the driver's own code, and damage done on purpose.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use pool::record::SnapshotRecord;
use pool::{SnapshotId, View};

use crate::{csi, requests, wait};

const CLUSTER: usize = 64 << 10;
/// How long a digest may take in the background.
const PATIENCE: Duration = Duration::from_secs(60);

/// A snapshot whose data is to be digested.
#[must_use]
pub fn digested(name: &str, volume_id: &str) -> csi::CreateSnapshotRequest {
    let mut request = requests::snapshot(name, volume_id);
    let parameters = &mut request.parameters;
    let _none = parameters.insert("checksum".to_owned(), "blake3".to_owned());
    request
}

/// The digest of a raw disk, as `docs/integrity.md` specifies it.
#[track_caller]
#[must_use]
pub fn digest_of_disk(raw: &Path) -> String {
    let mut file =
        File::open(raw).unwrap_or_else(|error| panic!("open {}: {error}", raw.display()));
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; CLUSTER];
    for number in 0_u64.. {
        match file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(_end) => break,
        }
        if bytes.iter().any(|byte| *byte != 0) {
            hasher.update(&number.to_le_bytes());
            hasher.update(blake3::hash(&bytes).as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What the pool records of a snapshot.
#[track_caller]
#[must_use]
pub fn record(pool: &Path, snapshot_id: &str) -> SnapshotRecord {
    let id = SnapshotId::parse(snapshot_id).expect("an id");
    View::open(pool)
        .and_then(|view| view.snapshot(&id))
        .unwrap_or_else(|error| panic!("{snapshot_id}: {error}"))
}

/// The UUID of a pool.
#[track_caller]
#[must_use]
pub fn pool_uuid(pool: &Path) -> String {
    let view = View::open(pool).unwrap_or_else(|error| panic!("{}: {error}", pool.display()));
    view.marker().uuid.clone()
}

/// The digest that is recorded, once it is.
#[track_caller]
#[must_use]
pub fn wait_for_digest(pool: &Path, snapshot_id: &str) -> String {
    let mut found = None;
    let made = wait::holds_within(PATIENCE, || {
        let checksum = record(pool, snapshot_id).checksum;
        found = checksum.expect("a checksum was asked for").digest;
        found.is_some()
    });
    assert!(made, "{snapshot_id} has no digest after {PATIENCE:?}");
    found.expect("made")
}

/// Waits until a snapshot is marked as damaged; what is recorded of it.
#[track_caller]
pub fn wait_for_mark(pool: &Path, snapshot_id: &str) -> String {
    let mut found = None;
    let marked = wait::holds_within(PATIENCE, || {
        found = record(pool, snapshot_id).damage;
        found.is_some()
    });
    assert!(marked, "{snapshot_id} is not marked after {PATIENCE:?}");
    found.expect("marked").reason
}

/// Turns one bit of the byte at `offset` of a file, on the disk. The same again turns it back.
#[track_caller]
pub fn flip(path: &Path, offset: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read a byte");
    byte[0] ^= 1 << (offset % 8);
    file.write_all_at(&byte, offset).expect("write a byte");
    file.sync_all().expect("sync");
}

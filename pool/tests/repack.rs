//! Replacing the image of a snapshot while other things happen to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod objects;

use std::os::unix::fs::FileExt;

use pool::record::{Compression, Damage, Packed, Packing, SnapshotRecord, Timestamp};
use pool::size::MIB;
use pool::{ErrorKind, PackedContent, Pool};

use crate::objects::{mk_pool, mk_snapshot, mk_volume, names};

/// Replaces the image of `cut`; `meanwhile` happens before it is.
fn repack(
    pool: &Pool,
    cut: &SnapshotRecord,
    meanwhile: impl FnOnce(),
) -> pool::Result<SnapshotRecord> {
    pool.repack_snapshot(&cut.id, |old, target, room| {
        assert_eq!(old.record, *cut);
        room.reserve(0, MIB)?;
        target.write_all_at(&[5; 4096], 0).unwrap();
        meanwhile();
        Ok(PackedContent {
            charge_bytes: 4096,
            data_offset: 0,
            metadata_digest: "packed".to_owned(),
            packed: Packed {
                compression: Compression::Zstd,
                file_bytes: 4096,
            },
        })
    })
}

#[test]
fn what_is_found_out_of_a_snapshot_while_its_image_is_replaced_is_kept() {
    let (_folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 8), |_| Ok(())).unwrap();
    let cut = mk_snapshot(&pool, "cut", &volume);
    let replaced = repack(&pool, &cut, || {
        pool.update_snapshot(&cut.id, None, |record| {
            let checksum = record.checksum.as_mut().unwrap();
            checksum.verified = Some(Timestamp(5));
            checksum.digest = Some("digest".to_owned());
        })
        .unwrap();
    })
    .unwrap();
    let checksum = replaced.checksum.clone().unwrap();
    assert_eq!(checksum.verified, Some(Timestamp(5)));
    assert_eq!(checksum.digest.as_deref(), Some("digest"));
    assert!(matches!(replaced.packing, Packing::Done(_)));
    assert_eq!(pool.snapshot(&cut.id).unwrap(), replaced);
    assert_eq!(pool.usage().unwrap().figures.snapshot_charges, 4096);
}

#[test]
fn the_image_of_a_snapshot_that_was_deleted_or_found_damaged_meanwhile_is_not_replaced() {
    let (folder, pool) = mk_pool();
    let volume = pool.create_volume(mk_volume("a", 8), |_| Ok(())).unwrap();
    let cut = mk_snapshot(&pool, "damaged", &volume);
    let refused = repack(&pool, &cut, || {
        pool.update_snapshot(&cut.id, None, |record| {
            record.damage = Some(Damage {
                found: Timestamp(1),
                reason: "a test".to_owned(),
            });
        })
        .unwrap();
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(pool.snapshot(&cut.id).unwrap().packing.is_wanted());
    let cut = mk_snapshot(&pool, "deleted", &volume);
    let gone = repack(&pool, &cut, || pool.delete_snapshot(&cut.id).unwrap());
    assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&folder.path().join("tmp")), Vec::<String>::new());
    assert_eq!(pool.usage().unwrap().figures.pending, 0);
}

//! Pools, volumes and snapshots that tests begin with.
#![allow(dead_code, reason = "no test needs all of them")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pool::record::{
    Checksum, Compression, Provisioning, SnapshotRecord, Timestamp, VolumeMode, VolumeRecord,
};
use pool::size::MIB;
use pool::{
    Comparison, NewSnapshot, NewVolume, Options, Pool, SnapshotContent, SnapshotId, VolumeId,
};
use tempfile::TempDir;

pub(crate) fn mk_pool() -> (TempDir, Pool) {
    let folder = tempfile::tempdir().unwrap();
    pool::init(folder.path(), "n1").unwrap();
    let pool = Pool::open(folder.path(), &Options::default()).unwrap();
    (folder, pool)
}

pub(crate) fn mk_volume(name: &str, mib: u64) -> NewVolume {
    NewVolume {
        id: VolumeId::from_name(name),
        name: name.to_owned(),
        requested_bytes: mib * MIB,
        size_bytes: mib * MIB,
        provisioning: Provisioning::Thin,
        mode: VolumeMode::Block,
        access_modes: vec!["SINGLE_NODE_WRITER".to_owned()],
        source: None,
        lineage: None,
    }
}

pub(crate) fn write(pool: &Pool, volume: &VolumeRecord, mib: usize) {
    let image = pool.open_image(&volume.id, true).unwrap();
    image.write_all_at(&vec![7; mib << 20], 0).unwrap();
    image.sync_all().unwrap();
}

pub(crate) fn mk_snapshot(pool: &Pool, name: &str, source: &VolumeRecord) -> SnapshotRecord {
    let new = NewSnapshot {
        id: SnapshotId::from_name(name),
        name: name.to_owned(),
        source: source.clone(),
        shares_blocks: false,
        compression: Some(Compression::Zstd),
        checksum: Some(Checksum::Blake3),
    };
    let content = |image: &fs::File| {
        image.write_all_at(&vec![9; 4 << 20], 0).unwrap();
        image.sync_all().unwrap();
        let content = SnapshotContent {
            created: Timestamp::now(),
            virtual_bytes: 4 * MIB,
            charge_bytes: 4 * MIB,
            data_offset: 0,
            metadata_digest: String::new(),
            extents: 1,
            stall_us: 0,
        };
        let compare: Comparison = Box::new(|_image| Ok(()));
        Ok((content, compare))
    };
    pool.create_snapshot(new, content).unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

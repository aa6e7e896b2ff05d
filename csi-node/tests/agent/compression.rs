//! A snapshot that is compressed after it was cut: its object says what it takes then.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use api::{Compression, LocalSnapshot};

use crate::machine::Machine;
use crate::objects::{self, MIB, create, delete, ready_volume, snapshot, snapshots, volumes, when};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_of_a_snapshot_says_what_it_takes_once_it_is_compressed() {
    let mut machine = Machine::new().await;
    machine.start();
    machine
        .pool_says(|pool| objects::is(pool, "Ready", "True"))
        .await;
    let source = ready_volume(&machine, 64 * MIB, None).await;
    let disk = machine
        .pool()
        .join("volumes")
        .join(&source)
        .join("disk.img");
    let disk = File::options().write(true).open(disk).unwrap();
    disk.write_all_at(&vec![7; 16 << 20], 0).unwrap();
    disk.sync_all().unwrap();
    let mut object = snapshot(&machine, &source);
    object.spec.compression = Some(Compression::Zstd);
    let cut = create(&snapshots(&machine), &object).await;
    let is_small = |cut: &LocalSnapshot| {
        let charge = cut.status.as_ref().and_then(|status| status.charge_bytes);
        charge.is_some_and(|charge| charge < 4 << 20)
    };
    when(&snapshots(&machine), &cut, is_small, || machine.log()).await;
    delete(&machine, &snapshots(&machine), &cut).await;
    delete(&machine, &volumes(&machine), &source).await;
}

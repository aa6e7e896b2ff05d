//! What a container that has a volume's device in its own `/dev` sees, whatever kubelet asks for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};
use node::{MIB, Machine, write};
use pool::VolumeId;
use pool::record::VolumeMode;

/// A container has a device by its number, and keeps that when kubelet takes the volume away from under it: it does so when it
/// starts while the API server does not answer it.
#[tokio::test]
async fn a_container_whose_volume_was_taken_away_never_sees_another_and_has_its_own_again_later() {
    let machine = Machine::new();
    let own = format!("own-{}", uuid::Uuid::new_v4());
    let own = machine.volume(&own, VolumeMode::Block, 16 * MIB).await;
    own.stage().await.unwrap();
    own.publish("pod").await.unwrap();
    write(&own.target("pod"), b"mine");
    let in_container = machine.path().join("device");
    let number = own.devices()[0].rdev;
    mknod(&in_container, SFlag::S_IFBLK, Mode::S_IRWXU, number).unwrap();
    own.unpublish("pod").await.unwrap();
    own.unstage().await.unwrap();
    let others: Vec<String> = (0..4).map(|place| format!("other-{place}")).collect();
    for name in &others {
        let other = machine.volume(name, VolumeMode::Block, 16 * MIB).await;
        other.stage().await.unwrap();
        other.publish(name).await.unwrap();
        write(&other.target(name), name.as_bytes());
        let device = OpenOptions::new().write(true).open(&in_container);
        let written = device.and_then(|device| device.write_all_at(b"not mine", 0));
        assert!(written.is_err(), "nothing is there to be written");
    }
    own.stage().await.unwrap();
    own.publish("pod").await.unwrap();
    assert_eq!(&read_from(&in_container, 4), b"mine");
    for name in &others {
        let other = machine.existing(VolumeId::from_name(name));
        assert_eq!(read_from(&other.target(name), name.len()), name.as_bytes());
    }
}

fn read_from(path: &Path, bytes: usize) -> Vec<u8> {
    let mut found = vec![0; bytes];
    let device = File::open(path).unwrap();
    device.read_exact_at(&mut found, 0).unwrap();
    found
}

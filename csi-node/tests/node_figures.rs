//! Statistics, growth, health, and who the node is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::fs;
use std::path::Path;

use node::{MIB, Machine, ext4, write, xfs};
use pool::record::VolumeMode;
use proto::csi::v1::node_server::Node as _;
use proto::csi::v1::volume_usage::Unit;
use proto::csi::v1::{self, VolumeHealthErrorType};
use tonic::{Code, Request};

#[tokio::test]
async fn a_filesystem_volume_has_bytes_and_inodes_and_a_block_volume_its_size() {
    let machine = Machine::new();
    let files = machine.volume("a", ext4(), 64 * MIB).await;
    files.stage().await.unwrap();
    files.publish("a").await.unwrap();
    for path in [files.target("a"), files.staging.clone()] {
        let usage = files.stats(&path).await.unwrap();
        assert_eq!(usage.len(), 2);
        assert!(
            usage
                .iter()
                .all(|one| one.total == one.used + one.available || one.unit() == Unit::Bytes)
        );
        assert!(usage.iter().all(|one| one.total > 0 && one.available > 0));
    }
    let disk = machine.volume("b", VolumeMode::Block, 64 * MIB).await;
    disk.stage().await.unwrap();
    disk.publish("b").await.unwrap();
    let usage = disk.stats(&disk.target("b")).await.unwrap();
    assert_eq!(usage[0].total, 64 << 20);
}

#[tokio::test]
async fn a_path_where_the_volume_is_not_is_not_found() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    let other = machine.volume("b", ext4(), 16 * MIB).await;
    other.stage().await.unwrap();
    for path in [
        Path::new("some/path"),
        Path::new("/"),
        Path::new("/nowhere/at/all"),
        machine.path(),
        &other.staging,
        &volume.staging,
    ] {
        assert_eq!(
            volume.stats(path).await.unwrap_err(),
            Code::NotFound,
            "{path:?}"
        );
        assert_eq!(
            volume.expand(path, 0).await.unwrap_err(),
            Code::NotFound,
            "{path:?}"
        );
    }
    assert_eq!(
        volume.stats(Path::new("")).await.unwrap_err(),
        Code::InvalidArgument
    );
    assert_eq!(
        volume.expand(Path::new(""), 0).await.unwrap_err(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_published_volume_grows() {
    let machine = Machine::new();
    for (name, mode) in [("x", xfs()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 320 * MIB).await;
        volume.stage().await.unwrap();
        volume.publish(name).await.unwrap();
        let path = volume.target(name);
        assert_eq!(volume.expand(&path, 0).await.unwrap(), 320 * MIB);
        assert_eq!(
            volume.expand(&path, 640 * MIB).await.unwrap_err(),
            Code::OutOfRange
        );
        volume.grow_image(640 * MIB).await;
        for path in [&path, &volume.staging] {
            assert_eq!(volume.expand(path, 640 * MIB).await.unwrap(), 640 * MIB);
        }
        let total = volume.stats(&path).await.unwrap()[0].total;
        assert!(total > 500 << 20, "{total}");
    }
}

/// Where the process may not grow a mounted ext4, it says so and grows it at the next stage.
#[tokio::test]
async fn an_ext4_volume_grows_at_the_latest_when_it_is_staged_again() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 64 * MIB).await;
    volume.stage().await.unwrap();
    write(&volume.staging.join("file"), b"kept");
    volume.grow_image(256 * MIB).await;
    let grown = volume.expand(&volume.staging, 256 * MIB).await;
    assert!(
        matches!(grown, Ok(_) | Err(Code::FailedPrecondition)),
        "{grown:?}"
    );
    volume.unstage().await.unwrap();
    volume.stage().await.unwrap();
    assert_eq!(
        volume.expand(&volume.staging, 256 * MIB).await,
        Ok(256 * MIB)
    );
    let total = volume.stats(&volume.staging).await.unwrap()[0].total;
    assert!(total > 200 << 20, "{total}");
    assert_eq!(fs::read(volume.staging.join("file")).unwrap(), b"kept");
}

#[tokio::test]
async fn a_reader_grows_through_the_mount_of_a_writer() {
    let machine = Machine::new();
    let volume = machine.volume("a", xfs(), 320 * MIB).await;
    let reader = volume.reading();
    volume.stage().await.unwrap();
    reader.publish("r").await.unwrap();
    volume.grow_image(400 * MIB).await;
    assert_eq!(reader.expand(&reader.target("r"), 0).await, Ok(400 * MIB));
}

#[tokio::test]
async fn health_tells_what_is_wrong() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    volume.stage().await.unwrap();
    let ask = |path: String| {
        let request = v1::NodeGetVolumeHealthRequest {
            volume_id: volume.id.to_string(),
            volume_publish_path: path,
            ..Default::default()
        };
        machine
            .service
            .node_get_volume_health(Request::new(request))
    };
    for path in [String::new(), node::text(&volume.staging)] {
        let health = ask(path).await.unwrap().into_inner().volume_health.unwrap();
        assert_eq!(health.volume_id, volume.id.as_str());
        assert_eq!(health.health_statuses, []);
    }
    assert_eq!(
        ask("/nowhere".into()).await.unwrap_err().code(),
        Code::NotFound
    );
    fs::remove_file(volume.image()).unwrap();
    let health = ask(String::new())
        .await
        .unwrap()
        .into_inner()
        .volume_health
        .unwrap();
    assert_eq!(
        health.health_statuses[0].status(),
        VolumeHealthErrorType::DataLoss
    );
    let storage = machine
        .service
        .node_get_storage_health(Request::new(v1::NodeGetStorageHealthRequest::default()))
        .await
        .unwrap();
    assert_eq!(storage.into_inner().backend_health, []);
}

#[tokio::test]
async fn the_node_tells_its_name_and_its_topology() {
    let machine = Machine::new();
    let answer = machine
        .service
        .node_get_info(Request::new(v1::NodeGetInfoRequest {}))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.node_id, "node-1");
    let segments = answer.accessible_topology.unwrap().segments;
    assert_eq!(segments["topology.vd.csi.io/node"], "node-1");
}

//! Requests that no kubelet sends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use node::{MIB, Machine, Volume, block, ext4, mount, with_flags, with_mode};
use pool::VolumeId;
use pool::record::VolumeMode;
use proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::Code;

fn hostile_paths(machine: &Machine) -> Vec<String> {
    let kubelet = node::text(&machine.kubelet());
    vec![
        String::new(),
        "relative/path".into(),
        "..".into(),
        "/".into(),
        "/etc".into(),
        format!("{kubelet}/../outside"),
        format!("{kubelet}/a/../../outside"),
        format!("{kubelet}/nul\0byte"),
        format!("{kubelet}/{}", "a/".repeat(3000)),
        format!("{kubelet}/link/inside"),
        kubelet,
    ]
}

fn tree(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap().flatten() {
        found.insert(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

#[tokio::test]
async fn hostile_paths_are_refused_and_nothing_is_made() {
    let machine = Machine::new();
    let outside = machine.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, machine.kubelet().join("link")).unwrap();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        let before = tree(&machine.kubelet());
        for path in hostile_paths(&machine) {
            let there = Volume {
                staging: path.clone().into(),
                pods: "/".into(),
                ..volume.clone()
            };
            assert_eq!(there.stage().await, Err(Code::InvalidArgument), "{path:?}");
            assert_eq!(
                there.unstage().await,
                Err(Code::InvalidArgument),
                "{path:?}"
            );
            // Joining an absolute path to the folder of pods gives that path.
            if path.starts_with('/') {
                assert_eq!(volume.publish(&path).await, Err(Code::InvalidArgument));
                assert_eq!(volume.unpublish(&path).await, Err(Code::InvalidArgument));
            }
            assert!(there.stats(Path::new(&path)).await.is_err());
            assert!(there.expand(Path::new(&path), 0).await.is_err());
        }
        assert_eq!(tree(&machine.kubelet()), before);
        assert_eq!(tree(&outside), BTreeSet::new());
        assert_eq!(volume.devices(), []);
    }
}

#[tokio::test]
async fn ids_that_are_not_ours_name_nothing() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    let unknown = Volume {
        id: VolumeId::from_name("unknown"),
        ..volume.clone()
    };
    assert_eq!(unknown.stage().await, Err(Code::NotFound));
    assert_eq!(unknown.publish("pod").await, Err(Code::NotFound));
    let path = volume.staging.clone();
    assert_eq!(unknown.stats(&path).await.unwrap_err(), Code::NotFound);
    assert_eq!(unknown.expand(&path, 0).await.unwrap_err(), Code::NotFound);
    assert!(!volume.target("pod").exists());
}

#[tokio::test]
async fn hostile_capabilities_are_refused_before_anything_is_looked_up() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    let unknown = Volume {
        id: VolumeId::from_name("unknown"),
        ..volume.clone()
    };
    for capability in [
        with_flags(&["loop"]),
        with_flags(&["noatime", "context=\"a\",suid"]),
        with_flags(&[&"x".repeat(100_000)]),
        with_flags(&["a\0b", "c\nd"]),
        mount("ext4\0"),
        mount("../ext4"),
        with_mode(block(), Mode::MultiNodeMultiWriter),
        with_mode(mount(""), Mode::MultiNodeReaderOnly),
        with_mode(mount(""), Mode::Unknown),
    ] {
        for volume in [&volume, &unknown] {
            let volume = volume.with(capability.clone());
            assert_eq!(volume.stage().await, Err(Code::InvalidArgument));
            assert_eq!(volume.publish("pod").await, Err(Code::InvalidArgument));
        }
    }
    assert_eq!(machine.mounts(), []);
}

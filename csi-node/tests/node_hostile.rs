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

#[tokio::test]
async fn an_unknown_volume_owns_no_mount_of_other_files_on_the_disk_of_the_pool() {
    let machine = Machine::new();
    let other_pool = Machine::new();
    let theirs = other_pool.volume("theirs", ext4(), 16 * MIB).await;
    theirs.stage().await.unwrap();
    let file = Foreign::mounted(machine.path());
    let unknown = Volume {
        id: VolumeId::from_name("unknown"),
        ..machine.volume("a", ext4(), 16 * MIB).await
    };
    // A volume of the other pool may even have the same name.
    let same = Volume {
        id: theirs.id.clone(),
        ..unknown.clone()
    };
    for mount_point in [&theirs.staging, &file.mount_point] {
        let at = machine.kubelet().join("bound");
        fs::create_dir(&at).unwrap();
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(mount_point), &at, None::<&str>, flags, None::<&str>).unwrap();
        for id in ["unknown-id", unknown.id.as_str(), same.id.as_str()] {
            assert!(
                fails(&machine, id, &at).await,
                "{id} at {}",
                mount_point.display()
            );
            assert_eq!(machine.mounts().len(), 2, "{id}");
        }
        nix::mount::umount(&at).unwrap();
        fs::remove_dir(&at).unwrap();
    }
    assert_eq!(theirs.devices().len(), 1);
    theirs.unstage().await.unwrap();
}

/// Whether an unpublish of `id` at `path` is refused, and an unstage there undoes nothing.
async fn fails(machine: &Machine, id: &str, path: &Path) -> bool {
    use proto::csi::v1::node_server::Node as _;
    use proto::csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

    let unstage = NodeUnstageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: node::text(path),
    };
    let unstaged = machine
        .service
        .node_unstage_volume(tonic::Request::new(unstage));
    unstaged.await.unwrap();
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: node::text(path),
    };
    let unpublished = machine
        .service
        .node_unpublish_volume(tonic::Request::new(unpublish));
    unpublished
        .await
        .is_err_and(|status| status.code() == Code::FailedPrecondition)
}

/// A filesystem in a file of somebody else's, as snapd has many.
struct Foreign {
    mount_point: PathBuf,
    device: pool::attach::loop_device::LoopDevice,
}

impl Foreign {
    fn mounted(folder: &Path) -> Self {
        let path = folder.join("foreign.img");
        let file = fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(16 * MIB).unwrap();
        let made = std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&path)
            .status();
        assert!(made.unwrap().success());
        let device = pool::attach::loop_device::attach(&file, "hostile", false)
            .unwrap()
            .device;
        let mount_point = folder.join("foreign");
        fs::create_dir(&mount_point).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some(&device.path()),
            &mount_point,
            Some("ext4"),
            flags,
            None::<&str>,
        )
        .unwrap();
        Self {
            mount_point,
            device,
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _gone = nix::mount::umount(&self.mount_point);
        let _gone = pool::attach::loop_device::detach(&self.device);
    }
}

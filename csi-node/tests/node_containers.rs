//! What a container keeps mounted. On its own, because such a container copies every mount that there is, also those of tests beside
//! it, which could not end.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::fs;

use node::{MIB, Machine, ext4, write, xfs};
use tonic::Code;

/// A process with a copy of all mounts, which nobody can take away from it: what a pod has.
struct Container(std::process::Child);

impl Container {
    fn start() -> Self {
        let child = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sleep", "600"])
            .spawn()
            .unwrap();
        let own = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        while fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
            std::thread::yield_now();
        }
        assert_ne!(own(child.id()), own(std::process::id()));
        Self(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn a_volume_that_only_a_running_pod_still_has_mounted_is_staged_again() {
    let machine = Machine::new();
    for mode in [ext4(), xfs()] {
        let fs = mode.fs_type().unwrap();
        let volume = machine.volume(fs.as_str(), mode, 320 * MIB).await;
        volume.stage().await.unwrap();
        write(&volume.staging.join("file"), b"hello");
        let pod = Container::start();
        assert_eq!(volume.unstage().await, Err(Code::FailedPrecondition));
        assert!(machine.mounts().is_empty());
        volume.stage().await.unwrap();
        assert_eq!(fs::read(volume.staging.join("file")).unwrap(), b"hello");
        drop(pod);
        volume.unstage().await.unwrap();
        assert!(volume.devices().is_empty());
    }
}

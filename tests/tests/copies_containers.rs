//! A copy of what a container keeps mounted. On its own, because such a container copies every mount that there is, also those of
//! tests beside it, which could not end.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::process::{Child, Command};
use std::time::Duration;

use tests::client::{accepted, refused};
use tests::fixture::Fixture;
use tests::requests::{filesystem, snapshot};
use tests::scratch_fs::{FsKind, MIB};
use tests::{tools, wait};
use tonic::Code;

const SIZE: u64 = 320 * MIB;

/// A process with a copy of all mounts, which nobody can take away from it: what a pod has.
struct Container(Child);

impl Container {
    fn start() -> Self {
        let mut command = Command::new("unshare");
        let _command = command.args(["--mount", "--propagation", "private", "sleep", "600"]);
        let child = tools::start(&mut command).unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        wait::until("a container", Duration::from_secs(60), || {
            std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n")
        });
        Self(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn where_blocks_are_not_shared_a_volume_that_only_a_pod_still_has_mounted_is_not_copied() {
    let fixture = Fixture::on(FsKind::Ext4);
    let client = &fixture.csi;
    let used = fixture.published("held", SIZE, &filesystem("ext4"));
    let pod = Container::start();
    accepted(used.unpublish(client));
    let _busy = refused(used.unstage(client), Code::FailedPrecondition);
    let request = snapshot("torn", &used.volume_id);
    let why = refused(
        client.create_snapshot(request.clone()),
        Code::FailedPrecondition,
    );
    assert!(
        why.message().contains("mounted in a container alone"),
        "{why}"
    );
    drop(pod);
    accepted(used.unstage(client));
    let cut = client.made_snapshot(request);
    accepted(client.delete_cut(&cut.snapshot_id));
    accepted(client.delete(&used.volume_id));
}

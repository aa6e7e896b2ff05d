//! Stage, publish, unpublish and unstage, killed and failing at each of their steps.
//!
//! Each case runs in a process of its own, this binary started again, because a fault is chosen once in a process's
//! life. Whatever it left, the calls that kubelet makes next succeed and leave nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use node::{MIB, Machine, Volume, ext4, write};
use pool::VolumeId;
use pool::fault::{Operation, Step};
use pool::record::VolumeMode;

const FOLDER: &str = "VD_TEST_FOLDER";
const VOLUME: &str = "VD_TEST_VOLUME";

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_and_the_next_try_succeeds() {
    for mode in [ext4(), VolumeMode::Block] {
        for step in steps() {
            let (mut machine, id) = made(mode).await;
            let status = life_with_fault(machine.path(), &id, step, "eio");
            assert!(status.success(), "{step:?}: {status}");
            machine.open();
            let volume = machine.existing(id);
            match step.operation() {
                Operation::StageVolume => assert_nothing_left(&machine, &volume, step),
                // What is staged stays, as kubelet believes.
                Operation::PublishVolume => {
                    assert!(machine.mounts().len() <= 1, "{step:?}");
                    assert!(!volume.target("pod").exists(), "{step:?}");
                }
                _ => {}
            }
            life(&volume).await.unwrap();
            assert_nothing_left(&machine, &volume, step);
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_step_is_made_up_for_by_the_next_calls() {
    for mode in [ext4(), VolumeMode::Block] {
        for step in steps() {
            let (mut machine, id) = made(mode).await;
            let status = life_with_fault(machine.path(), &id, step, "kill");
            assert!(
                status.success() || status.signal() == Some(9),
                "{step:?}: {status}"
            );
            machine.open();
            let volume = machine.existing(id);
            assert!(volume.devices().len() <= 1, "{step:?}");
            life(&volume).await.unwrap();
            assert_nothing_left(&machine, &volume, step);
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_step_is_made_up_for_when_kubelet_only_undoes() {
    for mode in [ext4(), VolumeMode::Block] {
        for step in steps() {
            let (mut machine, id) = made(mode).await;
            life_with_fault(machine.path(), &id, step, "kill");
            machine.open();
            let volume = machine.existing(id);
            volume.unpublish("pod").await.unwrap();
            volume.unstage().await.unwrap();
            assert_nothing_left(&machine, &volume, step);
        }
    }
}

/// The process with the fault; it is not a test of its own.
#[tokio::test]
#[ignore = "started by the other tests"]
async fn child_life() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let id = VolumeId::parse(&std::env::var(VOLUME).unwrap()).unwrap();
    let (node, service) = Machine::borrowed(&folder);
    let machine = Machine::without_folder(folder, node, service);
    let volume = machine.existing(id);
    println!("ended with {:?}", life(&volume).await);
    // The folder, its mounts and its devices belong to the parent.
    std::process::exit(0);
}

async fn life(volume: &Volume<'_>) -> Result<(), tonic::Code> {
    volume.stage().await?;
    volume.publish("pod").await?;
    if volume.target("pod").is_dir() {
        write(&volume.target("pod").join("file"), b"x");
    }
    volume.unpublish("pod").await?;
    volume.unstage().await
}

fn steps() -> impl Iterator<Item = Step> {
    use Operation::{PublishVolume, StageVolume, UnpublishVolume, UnstageVolume};
    let wanted = [StageVolume, PublishVolume, UnpublishVolume, UnstageVolume];
    Step::ALL
        .iter()
        .copied()
        .filter(move |step| wanted.contains(&step.operation()))
}

async fn made(mode: VolumeMode) -> (Machine, VolumeId) {
    let mut machine = Machine::new();
    let id = machine.volume("v", mode, 16 * MIB).await.id;
    machine.close();
    (machine, id)
}

fn life_with_fault(folder: &Path, id: &VolumeId, step: Step, action: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child_life", "--exact", "--ignored", "--nocapture"])
        .env("VD_FAULT", format!("{}:{action}", step.name()))
        .env(FOLDER, folder)
        .env(VOLUME, id.as_str())
        .output()
        .unwrap();
    println!("{step:?}: {}", String::from_utf8_lossy(&output.stdout));
    output.status
}

fn assert_nothing_left(machine: &Machine, volume: &Volume<'_>, step: Step) {
    assert_eq!(machine.mounts(), [], "{step:?}");
    assert_eq!(volume.devices(), [], "{step:?}");
    assert!(!volume.target("pod").exists(), "{step:?}");
}

//! What kubelet does with one volume, in order and out of order.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and reports by printing"
)]

mod node;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, symlink};

use node::{MIB, Machine, Volume, block, ext4, mount, with_flags, with_mode, write, xfs};
use pool::VolumeId;
use pool::record::{FormatState, Source, VolumeMode, VolumeRecord};
use proto::csi::v1::volume_capability::access_mode::Mode;
use tonic::Code;

#[tokio::test]
async fn a_filesystem_volume_lives_from_stage_to_unstage() {
    let machine = Machine::new();
    for mode in [ext4(), xfs()] {
        let fs = mode.fs_type().unwrap();
        let volume = machine.volume(fs.as_str(), mode, 320 * MIB).await;
        volume.stage().await.unwrap();
        let record = volume.record();
        assert!(record.staged);
        let VolumeMode::Filesystem(format) = record.mode else {
            panic!("{record:?}")
        };
        assert_eq!(format.state, FormatState::Formatted);
        let pod = format!("{fs}-pod");
        volume.publish(&pod).await.unwrap();
        write(&volume.target(&pod).join("file"), b"hello");
        volume.unpublish(&pod).await.unwrap();
        assert!(!volume.target(&pod).exists());
        volume.unstage().await.unwrap();
        assert!(volume.devices().is_empty());
        assert!(machine.mounts().is_empty());
        // Formatted once and for all.
        volume.stage().await.unwrap();
        assert_eq!(fs::read(volume.staging.join("file")).unwrap(), b"hello");
        volume.unstage().await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_of_a_volume_that_never_had_its_filesystem_gets_one_of_its_own() {
    let machine = Machine::new();
    for mode in [ext4(), xfs()] {
        for state in [FormatState::Unformatted, FormatState::Formatting] {
            let name = format!("{mode:?} {state:?}");
            let source = machine.volume(&name, mode, 320 * MIB).await;
            if state == FormatState::Formatting {
                interrupt_mkfs(&source);
            }
            let cut = machine.snapshot(&name, &source).await;
            let sources = [Source::Snapshot(cut), Source::Volume(source.id.clone())];
            for (number, from) in sources.into_iter().enumerate() {
                let copy = machine
                    .copied(&format!("{name} {number}"), &source, from)
                    .await;
                assert_eq!(state_of(&copy), state, "{name} {number}");
                copy.stage().await.unwrap();
                assert_eq!(state_of(&copy), FormatState::Formatted);
                write(&copy.staging.join("file"), b"hello");
                copy.unstage().await.unwrap();
                // What a copy has from now on is content.
                let again = Source::Volume(copy.id.clone());
                let again = machine
                    .copied(&format!("{name} {number} again"), &copy, again)
                    .await;
                assert_eq!(state_of(&again), FormatState::Inherited);
                again.stage().await.unwrap();
                assert_eq!(fs::read(again.staging.join("file")).unwrap(), b"hello");
                again.unstage().await.unwrap();
            }
        }
    }
}

fn state_of(volume: &Volume<'_>) -> FormatState {
    match volume.record().mode {
        VolumeMode::Filesystem(format) => format.state,
        VolumeMode::Block => panic!("a block volume"),
    }
}

/// What a crash in mkfs leaves.
fn interrupt_mkfs(volume: &Volume<'_>) {
    let image = OpenOptions::new().write(true).open(volume.image()).unwrap();
    image.write_all_at(b"half of a filesystem", 4096).unwrap();
    let formatting = |record: &mut VolumeRecord| {
        if let VolumeMode::Filesystem(format) = &mut record.mode {
            format.state = FormatState::Formatting;
        }
    };
    let pool = volume.machine.pool();
    pool.update_volume(&volume.id, formatting).unwrap();
}

#[tokio::test]
async fn a_block_volume_lives_from_stage_to_unstage() {
    let machine = Machine::new();
    let volume = machine.volume("v", VolumeMode::Block, 8 * MIB).await;
    volume.stage().await.unwrap();
    volume.publish("pod").await.unwrap();
    let target = volume.target("pod");
    assert!(fs::metadata(&target).unwrap().file_type().is_block_device());
    let disk = OpenOptions::new().write(true).open(&target).unwrap();
    disk.write_all_at(b"hello", 4096).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    volume.unpublish("pod").await.unwrap();
    assert!(!target.exists());
    volume.unstage().await.unwrap();
    assert!(volume.devices().is_empty());
    let mut seen = [0; 5];
    let image = File::open(volume.image()).unwrap();
    image.read_exact_at(&mut seen, 4096).unwrap();
    assert_eq!(&seen, b"hello");
}

#[tokio::test]
async fn repeated_calls_stack_nothing_also_after_a_restart() {
    let mut machine = Machine::new();
    let ids: Vec<VolumeId> = {
        let a = machine.volume("a", ext4(), 16 * MIB).await;
        let b = machine.volume("b", VolumeMode::Block, 16 * MIB).await;
        vec![a.id, b.id]
    };
    for _life in 0..2 {
        for id in &ids {
            let volume = machine.existing(id.clone());
            for _again in 0..3 {
                volume.stage().await.unwrap();
            }
            for _again in 0..3 {
                volume.publish(&format!("pod-{id}")).await.unwrap();
            }
            assert_eq!(volume.devices().len(), 1);
        }
        assert_eq!(machine.mounts().len(), 3, "{:?}", machine.mounts());
        machine.restart();
    }
    for id in &ids {
        let volume = machine.existing(id.clone());
        volume.unpublish(&format!("pod-{id}")).await.unwrap();
        volume.unstage().await.unwrap();
        assert!(volume.devices().is_empty());
    }
    assert!(machine.mounts().is_empty());
}

#[tokio::test]
async fn publish_after_a_reboot_makes_up_for_the_stage_and_uses_what_was_left() {
    let mut machine = Machine::new();
    let ids: Vec<VolumeId> = {
        let a = machine.volume("a", ext4(), 16 * MIB).await;
        let b = machine.volume("b", VolumeMode::Block, 16 * MIB).await;
        for volume in [&a, &b] {
            volume.stage().await.unwrap();
            volume.publish(volume.id.as_str()).await.unwrap();
        }
        write(&a.target(a.id.as_str()).join("file"), b"kept");
        vec![a.id, b.id]
    };
    machine.reboot();
    for id in &ids {
        let volume = machine.existing(id.clone());
        assert!(volume.target(id.as_str()).exists(), "a leftover");
        volume.publish(id.as_str()).await.unwrap();
    }
    let a = machine.existing(ids[0].clone());
    assert_eq!(
        fs::read(a.target(a.id.as_str()).join("file")).unwrap(),
        b"kept"
    );
    for id in &ids {
        let volume = machine.existing(id.clone());
        volume.unpublish(id.as_str()).await.unwrap();
        volume.unstage().await.unwrap();
    }
    assert!(machine.mounts().is_empty());
}

#[tokio::test]
async fn undoing_what_is_gone_or_never_was_is_fine() {
    let mut machine = Machine::new();
    let id = {
        let volume = machine.volume("a", ext4(), 16 * MIB).await;
        volume.unpublish("never").await.unwrap();
        volume.unstage().await.unwrap();
        volume.stage().await.unwrap();
        volume.publish("pod").await.unwrap();
        volume.id
    };
    machine.reboot();
    let volume = machine.existing(id);
    for _again in 0..2 {
        volume.unpublish("pod").await.unwrap();
        volume.unstage().await.unwrap();
    }
    assert!(!volume.target("pod").exists());
    fs::remove_dir(&volume.staging).unwrap();
    volume.unstage().await.unwrap();
    for text in ["vol-00000000000000000000000000000000", "pvc-x", "../../etc"] {
        let service = &machine.service;
        use proto::csi::v1::node_server::Node as _;
        let request = proto::csi::v1::NodeUnpublishVolumeRequest {
            volume_id: text.into(),
            target_path: node::text(&volume.target("pod")),
        };
        service
            .node_unpublish_volume(tonic::Request::new(request))
            .await
            .unwrap();
        let request = proto::csi::v1::NodeUnstageVolumeRequest {
            volume_id: text.into(),
            staging_target_path: node::text(&volume.staging),
        };
        service
            .node_unstage_volume(tonic::Request::new(request))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_volume_removed_behind_our_back_is_still_unpublished_and_unstaged() {
    let machine = Machine::new();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        volume.stage().await.unwrap();
        volume.publish(name).await.unwrap();
        let devices = volume.devices();
        fs::remove_file(volume.image()).unwrap();
        volume.unpublish(name).await.unwrap();
        assert!(!volume.target(name).exists());
        volume.unstage().await.unwrap();
        let left = pool::attach::loop_device::find(devices[0].image).unwrap();
        assert_eq!(left, []);
        assert_eq!(volume.stage().await, Err(Code::DataLoss));
        assert!(!volume.image().exists(), "never made anew");
    }
}

#[tokio::test]
async fn an_unpublish_of_an_unknown_volume_leaves_the_mount_of_a_known_one() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    volume.stage().await.unwrap();
    volume.publish("pod").await.unwrap();
    let other = node::Volume {
        id: VolumeId::from_name("other"),
        ..volume.clone()
    };
    assert_eq!(other.unpublish("pod").await, Err(Code::FailedPrecondition));
    other.unstage().await.unwrap();
    assert_eq!(machine.mounts().len(), 2);
}

#[tokio::test]
async fn a_second_path_follows_the_access_mode() {
    let machine = Machine::new();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        let usual = volume.capability.clone();
        volume.stage().await.unwrap();
        let one = format!("{name}-1");
        let two = format!("{name}-2");
        for (mode, expected) in [
            (Mode::SingleNodeMultiWriter, Ok(())),
            (Mode::SingleNodeWriter, Err(Code::FailedPrecondition)),
            (Mode::SingleNodeSingleWriter, Err(Code::FailedPrecondition)),
        ] {
            let volume = volume.with(with_mode(usual.clone(), mode));
            volume.publish(&one).await.unwrap();
            assert_eq!(volume.publish(&two).await, expected, "{mode:?}");
            assert_eq!(volume.target(&two).exists(), expected.is_ok());
            volume.publish(&one).await.unwrap();
            volume.unpublish(&two).await.unwrap();
            volume.unpublish(&one).await.unwrap();
        }
        volume.unstage().await.unwrap();
    }
}

#[tokio::test]
async fn a_read_only_publish_cannot_be_written_and_is_not_a_writable_one() {
    let machine = Machine::new();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        let reader = volume.reading();
        volume.stage().await.unwrap();
        let (rw, ro) = (format!("{name}-rw"), format!("{name}-ro"));
        volume.publish(&rw).await.unwrap();
        reader.publish(&ro).await.unwrap();
        reader.publish(&ro).await.unwrap();
        assert_eq!(volume.publish(&ro).await, Err(Code::AlreadyExists));
        assert_eq!(reader.publish(&rw).await, Err(Code::AlreadyExists));
        let refused = if mode == VolumeMode::Block {
            assert_eq!(volume.devices().len(), 2);
            let disk = OpenOptions::new().write(true).open(volume.target(&ro));
            disk.and_then(|disk| disk.write_at(b"x", 0)).unwrap_err()
        } else {
            File::create(volume.target(&ro).join("x")).unwrap_err()
        };
        assert!(matches!(refused.raw_os_error(), Some(1 | 30)), "{refused}");
        reader.unpublish(&ro).await.unwrap();
        assert_eq!(volume.devices().len(), 1);
        assert_eq!(volume.unstage().await, Err(Code::FailedPrecondition));
        volume.unpublish(&rw).await.unwrap();
        volume.unstage().await.unwrap();
        assert!(volume.devices().is_empty());
    }
}

#[tokio::test]
async fn a_publish_with_other_mount_options_is_not_the_same() {
    let machine = Machine::new();
    let plain = machine.volume("a", ext4(), 16 * MIB).await;
    plain.stage().await.unwrap();
    let all: [&[&str]; 5] = [
        &[],
        &["noexec"],
        &["noatime", "noexec"],
        &["strictatime", "nodiratime"],
        &["ro", "relatime"],
    ];
    for flags in &all {
        let pod = flags.join("-");
        let pod = format!("pod-{pod}");
        let volume = plain.with(with_flags(flags));
        volume.publish(&pod).await.unwrap();
        volume.publish(&pod).await.unwrap();
        for other in all.iter().filter(|other| *other != flags) {
            // Who says nothing about access times takes them as they are.
            let fits = matches!(
                (*flags, *other),
                (["strictatime", "nodiratime"], []) | (["noatime", "noexec"], ["noexec"])
            );
            let expected = if fits {
                Ok(())
            } else {
                Err(Code::AlreadyExists)
            };
            let answer = plain.with(with_flags(other)).publish(&pod).await;
            assert_eq!(answer, expected, "{other:?} on {flags:?}");
        }
        volume.unpublish(&pod).await.unwrap();
    }
    plain.unstage().await.unwrap();
}

#[tokio::test]
async fn a_volume_is_used_as_what_it_is() {
    let machine = Machine::new();
    let files = machine.volume("a", ext4(), 16 * MIB).await;
    let disk = machine.volume("b", VolumeMode::Block, 16 * MIB).await;
    for wrong in [
        files.with(block()),
        files.with(mount("xfs")),
        disk.with(mount("")),
    ] {
        assert_eq!(wrong.stage().await, Err(Code::FailedPrecondition));
        assert_eq!(wrong.publish("pod").await, Err(Code::FailedPrecondition));
    }
    let flags = files.with(with_flags(&["noatime", "suid"]));
    assert_eq!(flags.stage().await, Err(Code::InvalidArgument));
    assert!(machine.mounts().is_empty());
    assert!(files.devices().is_empty() && disk.devices().is_empty());
}

#[tokio::test]
async fn what_lies_at_a_path_and_is_not_ours_stays() {
    let machine = Machine::new();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        volume.stage().await.unwrap();
        let victim = machine.path().join(format!("victim-{name}"));
        fs::create_dir(&victim).unwrap();
        write(&victim.join("canary"), b"alive");
        symlink(&victim, volume.target("link")).unwrap();
        fs::create_dir_all(volume.target("full").join("x")).unwrap();
        write(&volume.target("file"), b"content");
        for pod in ["link", "full", "file"] {
            assert_eq!(volume.publish(pod).await, Err(Code::AlreadyExists), "{pod}");
            assert_eq!(
                volume.unpublish(pod).await,
                Err(Code::FailedPrecondition),
                "{pod}"
            );
        }
        assert_eq!(fs::read(victim.join("canary")).unwrap(), b"alive");
        assert_eq!(fs::read(volume.target("file")).unwrap(), b"content");
        volume.unstage().await.unwrap();
        fs::remove_dir(&volume.staging).unwrap();
        symlink(&victim, &volume.staging).unwrap();
        assert_eq!(volume.stage().await, Err(Code::AlreadyExists));
        volume.unstage().await.unwrap();
        for pod in ["link", "file"] {
            fs::remove_file(volume.target(pod)).unwrap();
        }
        assert!(volume.devices().is_empty());
    }
}

#[tokio::test]
async fn a_stage_where_another_volume_is_mounted_is_refused() {
    let machine = Machine::new();
    let first = machine.volume("a", ext4(), 16 * MIB).await;
    let second = machine.volume("b", ext4(), 16 * MIB).await;
    first.stage().await.unwrap();
    let second = node::Volume {
        staging: first.staging.clone(),
        ..second
    };
    assert_eq!(second.stage().await, Err(Code::AlreadyExists));
    assert_eq!(second.publish("pod").await, Err(Code::AlreadyExists));
    second.unstage().await.unwrap();
    assert_eq!(machine.mounts().len(), 1);
    assert!(second.devices().is_empty());
}

#[tokio::test]
async fn a_stage_with_other_options_is_refused_and_a_reader_stages_read_only() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    let reader = volume.with(with_mode(mount(""), Mode::SingleNodeReaderOnly));
    reader.stage().await.unwrap();
    assert_eq!(volume.stage().await, Err(Code::AlreadyExists));
    assert!(File::create(volume.staging.join("x")).is_err());
    volume.unstage().await.unwrap();
    volume.stage().await.unwrap();
}

#[tokio::test]
async fn an_image_of_the_wrong_size_is_not_attached() {
    let machine = Machine::new();
    let volume = machine.volume("a", VolumeMode::Block, 16 * MIB).await;
    let image = OpenOptions::new().write(true).open(volume.image()).unwrap();
    image.set_len(8 * MIB).unwrap();
    assert_eq!(volume.stage().await, Err(Code::DataLoss));
    assert_eq!(volume.publish("pod").await, Err(Code::DataLoss));
    assert!(volume.devices().is_empty());
    assert!(!volume.target("pod").exists());
}

#[tokio::test]
async fn a_damaged_filesystem_is_reported_and_nothing_stays_attached() {
    let machine = Machine::new();
    for mode in [ext4(), xfs()] {
        let fs = mode.fs_type().unwrap();
        let volume = machine.volume(fs.as_str(), mode, 320 * MIB).await;
        volume.stage().await.unwrap();
        volume.unstage().await.unwrap();
        let image = OpenOptions::new().write(true).open(volume.image()).unwrap();
        image.write_all_at(&[0x5a; 4096], 0).unwrap();
        assert_eq!(volume.stage().await, Err(Code::DataLoss));
        assert!(volume.devices().is_empty());
        assert!(machine.mounts().is_empty());
    }
}

#[tokio::test]
async fn a_busy_volume_is_not_unpublished_and_is_later() {
    let machine = Machine::new();
    let volume = machine.volume("a", ext4(), 16 * MIB).await;
    volume.stage().await.unwrap();
    volume.publish("pod").await.unwrap();
    let user = File::create(volume.target("pod").join("open")).unwrap();
    assert_eq!(volume.unpublish("pod").await, Err(Code::FailedPrecondition));
    assert_eq!(machine.mounts().len(), 2);
    drop(user);
    volume.unpublish("pod").await.unwrap();
}

#[tokio::test]
async fn a_volume_whose_staging_folder_is_hidden_is_cut_all_the_same() {
    let machine = Machine::new();
    let hidden = machine.kubelet().join("hidden");
    fs::create_dir_all(hidden.join("staging")).unwrap();
    let volume = Volume {
        staging: hidden.join("staging"),
        ..machine.volume("a", ext4(), 16 * MIB).await
    };
    volume.stage().await.unwrap();
    volume.publish("pod").await.unwrap();
    write(&volume.target("pod").join("file"), b"kept");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &hidden, Some("tmpfs"), flags, None::<&str>).unwrap();

    let cut = machine.snapshot("cut", &volume).await;

    nix::mount::umount(&hidden).unwrap();
    let copy = machine.copied("copy", &volume, Source::Snapshot(cut)).await;
    copy.stage().await.unwrap();
    assert_eq!(fs::read(copy.staging.join("file")).unwrap(), b"kept");
    copy.unstage().await.unwrap();
    volume.unpublish("pod").await.unwrap();
    volume.unstage().await.unwrap();
}

#[tokio::test]
async fn the_same_calls_at_once_end_as_one() {
    let machine = Machine::new();
    for (name, mode) in [("a", ext4()), ("b", VolumeMode::Block)] {
        let volume = machine.volume(name, mode, 16 * MIB).await;
        let (a, b, c) = tokio::join!(volume.stage(), volume.stage(), volume.stage());
        assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
        let (a, b, c) = tokio::join!(
            volume.publish(name),
            volume.publish(name),
            volume.publish(name)
        );
        assert_eq!((a, b, c), (Ok(()), Ok(()), Ok(())));
        assert_eq!(volume.devices().len(), 1);
    }
    assert_eq!(machine.mounts().len(), 3);
}

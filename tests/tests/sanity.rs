//! csi-sanity v5.6.0 against `vdctl serve`: no failure, and no skip but those named here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use std::collections::BTreeSet;

use tests::fixture::Fixture;
use tests::sanity::{Report, Run, folder};
use tests::scratch_fs::{FsKind, GIB};

/// Each capability that the driver leaves out on purpose, with the specs that need it.
const LEFT_OUT: &[(&str, &[&str])] = &[
    (
        "PUBLISH_UNPUBLISH_VOLUME: a local disk is not attached over a network, so there is nothing for a controller to do",
        &[
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no volume id is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no node id is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when no volume capability is provided",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the volume does not exist",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the node does not exist",
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when the volume is already published but is incompatible",
            "Controller Service [Controller Server] / ControllerUnpublishVolume / should fail when no volume id is provided",
            "Controller Service [Controller Server] / volume lifecycle / should work",
            "Controller Service [Controller Server] / volume lifecycle / should be idempotent",
        ],
    ),
    (
        "an attach limit: part of publishing from the controller",
        &[
            "Controller Service [Controller Server] / ControllerPublishVolume / should fail when publishing more volumes than the node max attach limit",
        ],
    ),
    (
        "MODIFY_VOLUME: there are no VolumeAttributesClass parameters yet",
        &[
            "Controller Service [Controller Server] / CreateVolume / should create volume with a volume attribute class",
            "Controller Service [Controller Server] / CreateVolume / should not create volume with an invalid volume attribute class",
            "ModifyVolume [Controller Server] / should fail if no volume id is given",
            "ModifyVolume [Controller Server] / should fail if volume does not exist",
            "ModifyVolume [Controller Server] / should fail if specified mutable parameters are not supported by the volume",
            "ModifyVolume [Controller Server] / should modify a volume created without a volume attribute class",
            "ModifyVolume [Controller Server] / should modify a volume created with a volume attribute class",
            "ModifyVolume [Controller Server] / should fail to modify a volume created with a volume attribute class if new mutable parameters are not supported by volume",
        ],
    ),
    (
        "GROUP_CONTROLLER_SERVICE: one cut for several disks is not built yet",
        &[
            "GroupController Service [GroupController Server] / GroupControllerGetCapabilities / should return appropriate capabilities",
            "GroupController Service [GroupController VolumeGroupSnapshots] / CreateVolumeGroupSnapshot / should fail when no name is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / GetVolumeGroupSnapshot / should fail when no volume id is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / GetVolumeGroupSnapshot / should fail when an invalid volume id is used",
            "GroupController Service [GroupController VolumeGroupSnapshots] / DeleteVolumeGroupSnapshot / should fail when no volume id is provided",
            "GroupController Service [GroupController VolumeGroupSnapshots] / DeleteVolumeGroupSnapshot / should succeed when an invalid volume id is used",
        ],
    ),
    (
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS: alpha, and no released sidecar knows it",
        &[
            "CreateSnapshot [Controller Server] / should succeed when creating a snapshot with accessibility requirements",
        ],
    ),
];

/// The specs that compare exact numbers of list entries: they cannot hold while another run makes and deletes volumes.
const COUNTS: &[&str] = &[
    "check the presence of new volumes and absence of deleted ones in the volume list",
    "check the presence of new snapshots in the snapshot list",
    "should return next token when a limited number of entries are requested",
];

/// Active specs of v5.6.0, as it is run here.
const ACTIVE: usize = 102;

fn run(fixture: &Fixture, name: &str, access: &'static str, fs_type: Option<&'static str>) -> Run {
    Run {
        socket: fixture.server.setup().socket.clone(),
        folder: folder(fixture.fs.folder(), name),
        access,
        parameters: fs_type
            .map(|fs_type| ("csi.storage.k8s.io/fstype", fs_type))
            .into_iter()
            .collect(),
        bytes: GIB,
        without: &[],
    }
}

#[track_caller]
fn assert_conforms(report: &Report, left_out: usize) {
    assert!(
        report.failed.is_empty(),
        "{} specs failed: {:#?}\n{}",
        report.failed.len(),
        report.failed,
        report.output
    );
    let on_purpose: BTreeSet<String> = LEFT_OUT
        .iter()
        .flat_map(|(_capability, specs)| specs.iter().map(|spec| (*spec).to_owned()))
        .collect();
    let unexpected: Vec<_> = report.skipped.difference(&on_purpose).collect();
    let not_skipped: Vec<_> = on_purpose.difference(&report.skipped).collect();
    assert!(
        unexpected.is_empty() && not_skipped.is_empty(),
        "skipped without being named here: {unexpected:#?}\nnamed here but not skipped: {not_skipped:#?}"
    );
    let ran = report.passed + report.skipped.len() + left_out;
    assert_eq!(ran, ACTIVE, "every active spec was accounted for");
}

fn conforms(kind: FsKind, access: &'static str, fs_type: Option<&'static str>) {
    let fixture = Fixture::on(kind);
    let report = run(&fixture, "only", access, fs_type).start().finish();
    assert_conforms(&report, 0);
}

macro_rules! conformance {
    ($( $name:ident: $kind:ident, $access:literal, $fs_type:expr; )+) => {
        $(
            #[test]
            fn $name() {
                conforms(FsKind::$kind, $access, $fs_type);
            }
        )+
    };
}

conformance! {
    ext4_volumes_on_an_xfs_pool_conform: Xfs, "mount", None;
    xfs_volumes_on_an_xfs_pool_conform: Xfs, "mount", Some("xfs");
    block_volumes_on_an_xfs_pool_conform: Xfs, "block", None;
    ext4_volumes_on_a_btrfs_pool_conform: Btrfs, "mount", None;
    xfs_volumes_on_a_btrfs_pool_conform: Btrfs, "mount", Some("xfs");
    block_volumes_on_a_btrfs_pool_conform: Btrfs, "block", None;
    ext4_volumes_on_an_ext4_pool_conform: Ext4, "mount", None;
    xfs_volumes_on_an_ext4_pool_conform: Ext4, "mount", Some("xfs");
    block_volumes_on_an_ext4_pool_conform: Ext4, "block", None;
}

#[test]
fn two_runs_at_once_against_one_server_conform() {
    let fixture = Fixture::on(FsKind::Xfs);
    let runs = [("left", "mount"), ("right", "block")].map(|(name, access)| {
        let run = Run {
            without: COUNTS,
            ..run(&fixture, name, access, None)
        };
        run.start()
    });
    for running in runs {
        assert_conforms(&running.finish(), COUNTS.len());
    }
}

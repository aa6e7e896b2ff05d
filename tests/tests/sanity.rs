//! csi-sanity v5.6.0 against `vdctl serve`: no failure, and no skip but those that are named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests: a panic is how they report"
)]

use tests::fixture::Fixture;
use tests::sanity::conformance::assert_conforms;
use tests::sanity::{Run, folder};
use tests::scratch_fs::{FsKind, GIB};

/// The specs that compare exact numbers of list entries: they cannot hold while another run makes and deletes volumes.
const COUNTS: &[&str] = &[
    "check the presence of new volumes and absence of deleted ones in the volume list",
    "check the presence of new snapshots in the snapshot list",
    "should return next token when a limited number of entries are requested",
];

fn run(fixture: &Fixture, name: &str, access: &'static str, fs_type: Option<&'static str>) -> Run {
    Run {
        socket: fixture.server.setup().socket.clone(),
        controller: None,
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

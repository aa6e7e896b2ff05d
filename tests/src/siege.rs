//! A server under attack by bad requests, and what bad requests are made of.

use std::fmt::Debug;

use csi::volume_capability::access_mode::Mode;
use csi::volume_capability::{AccessType, MountVolume};
use tonic::{Code, Status};

use crate::client::{Client, shown};
use crate::csi;
use crate::fixture::Fixture;
use crate::requests::{block, filesystem, with_mode};
use crate::scratch_fs::FsKind;
use crate::tree::{self, Tree};

/// A server, and something next to its pool that must stay as it is.
#[derive(Debug)]
pub struct Besieged {
    /// The server and its pool.
    pub fixture: Fixture,
    outside: Tree,
    inside: Tree,
}

impl Besieged {
    /// A server on an XFS pool, and the folder `canary` beside the pool.
    #[must_use]
    pub fn new() -> Self {
        let fixture = Fixture::on(FsKind::Xfs);
        let canary = fixture.fs.folder().join("canary");
        std::fs::create_dir_all(canary.join("folder")).unwrap();
        std::fs::write(canary.join("file"), "precious").unwrap();
        let mut made = Self {
            fixture,
            outside: Tree::new(),
            inside: Tree::new(),
        };
        made.outside = made.list_outside();
        made.inside = tree::list(&made.fixture.pool());
        made
    }

    /// The connection.
    #[must_use]
    pub fn csi(&self) -> &Client {
        &self.fixture.csi
    }

    /// What lies in the test's folder outside of the pool.
    #[must_use]
    pub fn list_outside(&self) -> Tree {
        let mut tree = tree::list(self.fixture.fs.folder());
        // The server's log grows, and the kernel writes to the image that the pool lies in.
        tree.retain(|path, _| {
            path.extension()
                .is_none_or(|end| end != "log" && end != "img")
                && *path != self.fixture.pool()
        });
        tree
    }

    /// Nothing was made, changed or removed anywhere.
    #[track_caller]
    pub fn assert_untouched(&self) {
        tree::unchanged("outside of the pool", &self.outside, &self.list_outside());
        self.assert_pool_untouched();
    }

    /// Nothing was made, changed or removed in the pool, and nothing attached.
    #[track_caller]
    pub fn assert_pool_untouched(&self) {
        let inside = tree::list(&self.fixture.pool());
        tree::unchanged("inside the pool", &self.inside, &inside);
        assert_eq!(self.fixture.fs.loops(), []);
    }
}

impl Default for Besieged {
    fn default() -> Self {
        Self::new()
    }
}

/// Strings that aim at something outside, or are unusual, but within the length limit.
#[must_use]
pub fn hostile() -> Vec<String> {
    let mixed: String = "aB3-".chars().cycle().take(128).collect();
    [
        "../canary/file",
        "../../canary",
        "../../../../../../../../etc/passwd",
        "..",
        ".",
        "/",
        "/etc/passwd",
        "volumes/../../canary",
        "pvc-../../../../../../../../../../../etc",
        "pvc-0B2BD8E1-6A3F-4A4A-9A53-2F1F1C2D3E4F",
        "a\nb",
        "$(reboot)",
        "-rf",
        "\u{202e}gpj.exe",
        " ",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([mixed, "é".repeat(64)])
    .collect()
}

/// Strings longer than the protocol allows.
#[must_use]
pub fn over_long() -> [String; 2] {
    ["x".repeat(129), "x".repeat(100_000)]
}

/// The call must be refused with `code` and a message.
#[track_caller]
pub fn assert_code<T: Debug>(what: &str, result: Result<T, Status>, code: Code) {
    match result {
        Err(status) if status.code() == code && !status.message().is_empty() => {}
        Err(status) => panic!("{what}: must be {code:?}, is {}", shown(&status)),
        Ok(answer) => panic!("{what}: must be {code:?}, but succeeded: {answer:?}"),
    }
}

/// Capabilities that no volume of this driver can have.
#[must_use]
pub fn bad_capabilities() -> Vec<(&'static str, Vec<csi::VolumeCapability>)> {
    let without_access = csi::VolumeCapability {
        access_type: None,
        ..block()
    };
    let without_mode = csi::VolumeCapability {
        access_mode: None,
        ..block()
    };
    let mut unknown_mode = block();
    unknown_mode.access_mode.as_mut().unwrap().mode = 99;
    let group = csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            volume_mount_group: "1000".to_owned(),
            ..Default::default()
        })),
        ..block()
    };
    vec![
        ("none", vec![]),
        ("no access type", vec![without_access]),
        ("no access mode", vec![without_mode]),
        ("unknown mode", vec![with_mode(block(), Mode::Unknown)]),
        ("a mode that does not exist", vec![unknown_mode]),
        (
            "many readers",
            vec![with_mode(block(), Mode::MultiNodeReaderOnly)],
        ),
        (
            "one writer of many",
            vec![with_mode(block(), Mode::MultiNodeSingleWriter)],
        ),
        (
            "many writers",
            vec![with_mode(block(), Mode::MultiNodeMultiWriter)],
        ),
        ("block and mount", vec![block(), filesystem("ext4")]),
        (
            "two filesystems",
            vec![filesystem("xfs"), filesystem("ext4")],
        ),
        ("unknown filesystem", vec![filesystem("btrfs")]),
        ("hostile filesystem", vec![filesystem("../ext4")]),
        ("filesystem with NUL", vec![filesystem("ext4\0")]),
        ("filesystem in capitals", vec![filesystem("EXT4")]),
        ("mount group", vec![group]),
    ]
}

//! Requests as hostile as callers can make them, and as Kubernetes really sends them.

mod arbitrary;
mod capability;
mod create_volume;
mod difference;
mod snapshot;
mod volume;

use std::collections::HashMap;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::{Topology, VolumeCapability};
use proto::errors::{Failure, Kind};

/// The driver's topology key in these tests.
const KEY: &str = "topology.vd.csi.io/node";

/// Strings that no id, name, key or value should survive unnoticed, or break anything with.
const HOSTILE: [&str; 7] = [
    "../../etc/passwd",
    "/",
    "a\0b",
    "\u{1b}[31m",
    "a\u{7f}",
    "\u{85}",
    "%s%n{}",
];

fn capability(access_type: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(access_type),
    }
}

fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

fn mount(fs_type: &str) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        ..MountVolume::default()
    };
    capability(AccessType::Mount(mount), Mode::SingleNodeMultiWriter)
}

fn map(entries: &[(&str, &str)]) -> HashMap<String, String> {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn place(entries: &[(&str, &str)]) -> Topology {
    Topology {
        segments: map(entries),
    }
}

/// Fails unless it is INVALID_ARGUMENT with a short message that holds this text.
#[track_caller]
fn assert_invalid<T: std::fmt::Debug>(result: Result<T, Failure>, text: &str) {
    let failure = result.expect_err("should be refused");
    assert_eq!(failure.kind, Kind::InvalidArgument, "{failure:?}");
    assert!(
        failure.message.contains(text),
        "{:?} lacks {text:?}",
        failure.message
    );
    assert!(failure.message.len() < 500, "{}", failure.message.len());
    assert!(
        !failure.message.contains(char::is_control),
        "{:?}",
        failure.message
    );
}

//! Whether a volume that exists is what CreateVolume asks for.

use proto::csi::v1::volume_capability::AccessMode;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::{CapacityRange, CreateVolumeRequest, TopologyRequirement};

use super::create_volume::{from_snapshot, parse, request};
use super::{KEY, place};
use crate::model::{FsType, Provisioning, Source, Volume, VolumeMode};
use crate::request::create_volume::Asked;

const GIB: u64 = 1 << 30;
const EXT4: VolumeMode = VolumeMode::Filesystem(FsType::Ext4);
const XFS: VolumeMode = VolumeMode::Filesystem(FsType::Xfs);

fn existing(asked: &Asked) -> Volume {
    Volume {
        id: asked.id.clone(),
        requested_bytes: GIB,
        capacity_bytes: GIB,
        mode: EXT4,
        provisioning: Provisioning::Thin,
        source: asked.source.clone(),
        nodes: vec!["edge-1".to_owned()],
    }
}

#[test]
fn the_same_request_again_fits_what_it_made() {
    let asked = parse(&request()).expect("valid");
    assert_eq!(asked.difference(&existing(&asked)), None);
    // Also after an expansion.
    let grown = Volume {
        capacity_bytes: 5 * GIB,
        ..existing(&asked)
    };
    assert_eq!(asked.difference(&grown), None);
    // Also with another access mode: every one that is possible on one node fits.
    for mode in [
        Mode::SingleNodeWriter,
        Mode::SingleNodeReaderOnly,
        Mode::SingleNodeSingleWriter,
        Mode::SingleNodeMultiWriter,
    ] {
        let mut other = request();
        for capability in &mut other.volume_capabilities {
            capability.access_mode = Some(AccessMode { mode: mode.into() });
        }
        let other = parse(&other).expect("valid");
        assert_eq!(other.difference(&existing(&asked)), None, "{mode:?}");
    }
}

#[test]
fn each_field_that_differs_is_named() {
    let mut first = request();
    let required_bytes = 1 << 30;
    first.capacity_range = Some(CapacityRange {
        required_bytes,
        limit_bytes: required_bytes,
    });
    let requisite = vec![place(&[(KEY, "edge-1")])];
    first.accessibility_requirements = Some(TopologyRequirement {
        requisite,
        preferred: vec![],
    });
    let asked = parse(&first).expect("valid");
    assert_eq!(asked.difference(&existing(&asked)), None);
    type Change = fn(&mut Volume);
    let changes: [(Change, &str); 7] = [
        (|volume| volume.capacity_bytes = GIB - 1, "bytes"),
        (|volume| volume.capacity_bytes = GIB + 1, "bytes"),
        (|volume| volume.mode = XFS, "filesystem xfs"),
        (|volume| volume.mode = VolumeMode::Block, "block"),
        (
            |volume| volume.provisioning = Provisioning::Thick,
            "provisioning",
        ),
        (
            |volume| volume.source = Some(Source::Snapshot("snap-1".to_owned())),
            "snap-1",
        ),
        (|volume| volume.nodes = vec!["edge-2".to_owned()], "edge-2"),
    ];
    for (change, text) in changes {
        let mut other = existing(&asked);
        change(&mut other);
        let difference = asked.difference(&other).expect("differs");
        assert!(difference.contains(text), "{difference:?} lacks {text:?}");
    }
}

#[test]
fn a_copy_fits_whatever_file_system_came_with_its_content() {
    let request = CreateVolumeRequest {
        volume_content_source: from_snapshot("s"),
        ..request()
    };
    let asked = parse(&request).expect("valid");
    let copy = existing(&asked);
    assert_eq!(
        asked.difference(&Volume {
            mode: XFS,
            ..copy.clone()
        }),
        None
    );
    assert!(
        asked
            .difference(&Volume {
                mode: VolumeMode::Block,
                ..copy.clone()
            })
            .is_some()
    );
    assert!(
        asked
            .difference(&Volume {
                source: None,
                ..copy
            })
            .is_some()
    );
}

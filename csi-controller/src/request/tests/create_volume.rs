//! CreateVolume.

use proto::csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, TopologyRequirement, VolumeContentSource,
};
use proto::errors::Kind;

use super::{HOSTILE, KEY, assert_invalid, block, map, mount, place};
use crate::ids;
use crate::model::{AccessMode, FsType, Placement, Provisioning, Source, VolumeMode};
use crate::request::create_volume::{Asked, SourceFacts};
use crate::size::{SourceSize, XFS_MINIMUM_BYTES};

const GIB: u64 = 1 << 30;
const EXT4: VolumeMode = VolumeMode::Filesystem(FsType::Ext4);
const XFS: VolumeMode = VolumeMode::Filesystem(FsType::Xfs);

pub(super) fn request() -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: "v".to_owned(),
        volume_capabilities: vec![mount("")],
        ..CreateVolumeRequest::default()
    }
}

pub(super) fn parse(request: &CreateVolumeRequest) -> Result<Asked, proto::errors::Failure> {
    Asked::parse(request, KEY)
}

#[track_caller]
fn refused(request: &CreateVolumeRequest, text: &str) {
    assert_invalid(parse(request), text);
}

pub(super) fn from_snapshot(id: &str) -> Option<VolumeContentSource> {
    let source = SnapshotSource {
        snapshot_id: id.to_owned(),
    };
    Some(VolumeContentSource {
        r#type: Some(SourceType::Snapshot(source)),
    })
}

fn from_volume(id: &str) -> Option<VolumeContentSource> {
    let source = VolumeSource {
        volume_id: id.to_owned(),
    };
    Some(VolumeContentSource {
        r#type: Some(SourceType::Volume(source)),
    })
}

fn facts(mode: VolumeMode) -> Option<SourceFacts> {
    let size = SourceSize {
        requested_bytes: GIB,
        image_bytes: GIB,
    };
    Some(SourceFacts { size, mode })
}

#[test]
fn what_external_provisioner_sends_is_understood() {
    let name = "pvc-3f8b9c1e-0d2a-4c6b-9e57-0123456789ab";
    let request = CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: 10_000_000_000,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![mount("xfs")],
        parameters: map(&[
            ("provisioning", "thick"),
            ("csi.storage.k8s.io/pvc/name", "disk"),
        ]),
        secrets: map(&[("token", "hunter2")]),
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![place(&[(KEY, "edge-2")]), place(&[(KEY, "edge-1")])],
            preferred: vec![place(&[(KEY, "edge-1")]), place(&[(KEY, "edge-2")])],
        }),
        ..CreateVolumeRequest::default()
    };
    let create = parse(&request)
        .expect("valid")
        .decide(None)
        .expect("possible");
    assert_eq!(create.id, name);
    assert_eq!(create.name, name);
    assert_eq!(create.requested_bytes, 10_000_000_000);
    assert_eq!(create.capacity_bytes, 9537 << 20);
    assert_eq!(create.mode, XFS);
    assert_eq!(create.provisioning, Provisioning::Thick);
    assert_eq!(create.access_modes, [AccessMode::SingleNodeMultiWriter]);
    assert_eq!(create.source, None);
    assert_eq!(create.placement.requisite, ["edge-2", "edge-1"]);
    assert_eq!(create.placement.preferred, ["edge-1", "edge-2"]);
    assert!(!format!("{create:?}").contains("hunter2"));
}

#[test]
fn names_are_any_text_but_control_characters() {
    for name in [
        "a",
        "a b",
        "a\tb\nc\r",
        "../../etc/passwd",
        "\u{1F980}",
        &"aB".repeat(64),
    ] {
        let asked = parse(&CreateVolumeRequest {
            name: name.to_owned(),
            ..request()
        });
        assert!(ids::is_volume_id(&asked.expect(name).id), "{name}");
    }
    refused(
        &CreateVolumeRequest {
            name: String::new(),
            ..request()
        },
        "name is missing",
    );
    for name in ["\0", "a\u{1b}b", "a\u{7f}", "a\u{85}", "a\u{b}"] {
        let text = "control characters";
        refused(
            &CreateVolumeRequest {
                name: name.to_owned(),
                ..request()
            },
            text,
        );
    }
    for name in ["x".repeat(129), "\u{1F980}".repeat(33), "x".repeat(1 << 20)] {
        refused(&CreateVolumeRequest { name, ..request() }, "CSI allows 128");
    }
}

#[test]
fn parameters_that_are_not_known_are_refused_with_the_known_ones() {
    for key in HOSTILE
        .into_iter()
        .chain(["fsType", "Provisioning", "", "csi.storage.k8s.io"])
    {
        let parameters = map(&[(key, "x")]);
        refused(
            &CreateVolumeRequest {
                parameters,
                ..request()
            },
            "known are provisioning",
        );
    }
    for value in HOSTILE.into_iter().chain(["", "Thin", "thin "]) {
        let parameters = map(&[("provisioning", value)]);
        refused(
            &CreateVolumeRequest {
                parameters,
                ..request()
            },
            "thin and thick",
        );
    }
    let parameters = map(&[("csi.storage.k8s.io/fstype", "btrfs")]);
    refused(
        &CreateVolumeRequest {
            parameters,
            ..request()
        },
        "use ext4 or xfs",
    );
    let parameters = map(&[("csi.storage.k8s.io/x", &"y".repeat(5000))]);
    refused(
        &CreateVolumeRequest {
            parameters,
            ..request()
        },
        "CSI allows 4096",
    );
}

#[test]
fn mutable_parameters_are_refused() {
    let mutable_parameters = map(&[("iops", "100")]);
    refused(
        &CreateVolumeRequest {
            mutable_parameters,
            ..request()
        },
        "VolumeAttributesClass",
    );
}

#[test]
fn sizes_that_contradict_themselves_are_refused() {
    for (required_bytes, limit_bytes, text) in [
        (-1, 0, "negative"),
        (0, -1, "negative"),
        (i64::MIN, 0, "negative"),
        (2, 1, "less than"),
    ] {
        let capacity_range = Some(CapacityRange {
            required_bytes,
            limit_bytes,
        });
        refused(
            &CreateVolumeRequest {
                capacity_range,
                ..request()
            },
            text,
        );
    }
}

#[test]
fn a_source_must_be_named() {
    for (source, text) in [
        (
            Some(VolumeContentSource { r#type: None }),
            "volume_content_source is empty",
        ),
        (from_snapshot(""), "snapshot_id is missing"),
        (from_volume(""), "volume_id is missing"),
        (from_snapshot(&"s".repeat(129)), "CSI allows 128"),
        (from_volume(&"v".repeat(129)), "CSI allows 128"),
    ] {
        refused(
            &CreateVolumeRequest {
                volume_content_source: source,
                ..request()
            },
            text,
        );
    }
    // A foreign id is well-formed: it names nothing, which is found out later.
    let volume_content_source = from_snapshot("fake-snapshot-id");
    let asked = parse(&CreateVolumeRequest {
        volume_content_source,
        ..request()
    })
    .expect("valid");
    assert_eq!(
        asked.source,
        Some(Source::Snapshot("fake-snapshot-id".to_owned()))
    );
}

#[test]
fn a_topology_is_one_node_by_our_key() {
    for bad in [
        place(&[]),
        place(&[("topology.kubernetes.io/zone", "z")]),
        place(&[(KEY, "n"), ("topology.kubernetes.io/zone", "z")]),
        place(&[(KEY, "")]),
    ] {
        for requirement in [
            TopologyRequirement {
                requisite: vec![bad.clone()],
                preferred: vec![],
            },
            TopologyRequirement {
                requisite: vec![],
                preferred: vec![bad.clone()],
            },
        ] {
            let accessibility_requirements = Some(requirement);
            refused(
                &CreateVolumeRequest {
                    accessibility_requirements,
                    ..request()
                },
                KEY,
            );
        }
    }
    let accessibility_requirements = Some(TopologyRequirement {
        requisite: vec![place(&[(KEY, "a")])],
        preferred: vec![place(&[(KEY, "b")])],
    });
    let text = "not among the requisite";
    refused(
        &CreateVolumeRequest {
            accessibility_requirements,
            ..request()
        },
        text,
    );
}

#[test]
fn an_empty_requirement_allows_every_node() {
    let accessibility_requirements = Some(TopologyRequirement::default());
    let asked = parse(&CreateVolumeRequest {
        accessibility_requirements,
        ..request()
    });
    let placement = asked.expect("valid").placement;
    assert_eq!(placement, Placement::default());
    assert!(placement.allows("any"));
}

#[test]
fn the_file_system_is_the_capabilitys_then_the_parameters_then_ext4() {
    let fs_parameter = map(&[("csi.storage.k8s.io/fstype", "xfs")]);
    for (fs_type, parameters, expected) in [
        ("", map(&[]), EXT4),
        ("", fs_parameter.clone(), XFS),
        ("ext4", fs_parameter, EXT4),
        ("xfs", map(&[("csi.storage.k8s.io/fstype", "")]), XFS),
    ] {
        let volume_capabilities = vec![mount(fs_type)];
        let asked = parse(&CreateVolumeRequest {
            volume_capabilities,
            parameters,
            ..request()
        });
        let create = asked.expect("valid").decide(None).expect("possible");
        assert_eq!(create.mode, expected, "{fs_type}");
    }
}

#[test]
fn a_copy_takes_over_the_file_system_of_its_source() {
    let with = |capability, parameters| {
        let request = CreateVolumeRequest {
            volume_capabilities: vec![capability],
            parameters: map(parameters),
            volume_content_source: from_snapshot("s"),
            ..request()
        };
        parse(&request).expect("valid")
    };
    let xfs_parameter = [("csi.storage.k8s.io/fstype", "xfs")];
    for (asked, source, expected) in [
        (with(mount(""), &[]), XFS, XFS),
        (with(mount("xfs"), &[]), XFS, XFS),
        (with(mount(""), &xfs_parameter), EXT4, EXT4),
        (with(block(), &[]), XFS, VolumeMode::Block),
        (with(block(), &[]), VolumeMode::Block, VolumeMode::Block),
        (with(mount(""), &[]), VolumeMode::Block, EXT4),
        (with(mount("xfs"), &[]), VolumeMode::Block, XFS),
        (with(mount(""), &xfs_parameter), VolumeMode::Block, XFS),
    ] {
        let create = asked.decide(facts(source)).expect("possible");
        assert_eq!(create.mode, expected, "{asked:?} from {source}");
    }
    assert_invalid(
        with(mount("xfs"), &[]).decide(facts(EXT4)),
        "the source carries ext4",
    );
}

#[test]
fn the_size_of_a_copy_follows_its_source() {
    let mut copy = request();
    copy.volume_content_source = from_volume("v");
    let create = parse(&copy)
        .expect("valid")
        .decide(facts(EXT4))
        .expect("possible");
    assert_eq!((create.requested_bytes, create.capacity_bytes), (GIB, GIB));
    copy.capacity_range = Some(CapacityRange {
        required_bytes: 1 << 20,
        limit_bytes: 0,
    });
    let failure = parse(&copy)
        .expect("valid")
        .decide(facts(EXT4))
        .expect_err("too small");
    assert_eq!(failure.kind, Kind::OutOfRange);
}

#[test]
fn an_xfs_volume_has_the_smallest_size_of_xfs() {
    let request = CreateVolumeRequest {
        capacity_range: Some(CapacityRange {
            required_bytes: 1,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![mount("xfs")],
        ..request()
    };
    let create = parse(&request)
        .expect("valid")
        .decide(None)
        .expect("possible");
    assert_eq!(
        (create.requested_bytes, create.capacity_bytes),
        (1, XFS_MINIMUM_BYTES)
    );
}

#[test]
fn a_requirement_names_as_many_nodes_as_a_cluster_can_have_in_any_order_and_no_more() {
    const MOST: usize = 16_384;
    let places = |count: usize| -> Vec<_> {
        (0..count)
            .map(|number| place(&[(KEY, &format!("node-{number}"))]))
            .collect()
    };
    let with = |requisite, preferred| CreateVolumeRequest {
        accessibility_requirements: Some(TopologyRequirement {
            requisite,
            preferred,
        }),
        ..request()
    };
    let mut backwards = places(MOST - 1);
    backwards.reverse();
    backwards.push(place(&[(KEY, "node-7")]));
    let asked = parse(&with(places(MOST), backwards)).expect("valid");
    let placement = asked.placement;
    assert_eq!(placement.requisite.len(), MOST);
    assert_eq!(placement.preferred.len(), MOST - 1, "each once");
    assert_eq!(placement.preferred[0], format!("node-{}", MOST - 2));
    for request in [
        with(places(MOST + 1), vec![]),
        with(vec![], places(MOST + 1)),
    ] {
        refused(&request, "16385 topologies");
    }
}

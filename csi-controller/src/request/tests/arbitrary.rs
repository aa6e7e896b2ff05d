//! No request makes the parsers panic, and what they accept is safe.

use proptest::prelude::*;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::{
    CapacityRange, CreateVolumeRequest, Topology, TopologyRequirement, VolumeCapability,
};

use super::KEY;
use crate::ids;
use crate::model::VolumeMode;
use crate::request::create_volume::{Asked, SourceFacts};
use crate::request::page;
use crate::size::{ALIGNMENT_BYTES, SizeRange, SourceSize};

fn capability() -> impl Strategy<Value = VolumeCapability> {
    let fs_type = prop_oneof![Just(String::new()), Just("xfs".to_owned()), ".*"];
    let flag = prop_oneof![Just("ro".to_owned()), "context=.*", ".*"];
    let mount = (fs_type, prop::collection::vec(flag, 0..3)).prop_map(|(fs_type, mount_flags)| {
        AccessType::Mount(MountVolume {
            fs_type,
            mount_flags,
            ..MountVolume::default()
        })
    });
    let access_type = prop_oneof![Just(AccessType::Block(BlockVolume {})), mount];
    (prop::option::of(access_type), prop::option::of(0..9_i32)).prop_map(|(access_type, mode)| {
        VolumeCapability {
            access_type,
            access_mode: mode.map(|mode| AccessMode { mode }),
        }
    })
}

fn topology() -> impl Strategy<Value = Topology> {
    let key = prop_oneof![Just(KEY.to_owned()), ".*"];
    prop::collection::hash_map(key, ".*", 0..3).prop_map(|segments| Topology { segments })
}

fn request() -> impl Strategy<Value = CreateVolumeRequest> {
    let key = prop_oneof![
        Just("provisioning".to_owned()),
        "csi.storage.k8s.io/.*",
        ".*"
    ];
    let value = prop_oneof![Just("thin".to_owned()), ".*"];
    (
        ".*",
        prop::option::of((any::<i64>(), any::<i64>())),
        prop::collection::vec(capability(), 0..3),
        prop::collection::hash_map(key, value, 0..3),
        prop::option::of(prop::collection::vec(topology(), 0..3)),
    )
        .prop_map(
            |(name, range, volume_capabilities, parameters, requisite)| CreateVolumeRequest {
                name,
                capacity_range: range.map(|(required_bytes, limit_bytes)| CapacityRange {
                    required_bytes,
                    limit_bytes,
                }),
                volume_capabilities,
                parameters,
                accessibility_requirements: requisite.map(|requisite| TopologyRequirement {
                    requisite,
                    preferred: vec![],
                }),
                ..CreateVolumeRequest::default()
            },
        )
}

proptest! {
    #[test]
    fn a_request_is_refused_in_few_words_or_decided_safely(request in request()) {
        let decided = Asked::parse(&request, KEY).and_then(|asked| {
            let facts = SourceFacts {
                size: SourceSize { requested_bytes: 1, image_bytes: ALIGNMENT_BYTES },
                mode: VolumeMode::Block,
            };
            asked.decide(Some(facts))
        });
        match decided {
            Ok(create) => {
                prop_assert!(ids::is_volume_id(&create.id));
                prop_assert_eq!(create.capacity_bytes % ALIGNMENT_BYTES, 0);
                prop_assert!(create.capacity_bytes >= create.requested_bytes);
                prop_assert!(!create.access_modes.is_empty());
            }
            Err(failure) => {
                prop_assert!(!failure.message.is_empty() && failure.message.len() < 1000);
                prop_assert!(!failure.message.contains(char::is_control));
            }
        }
    }

    #[test]
    fn a_size_is_in_its_range_or_refused(required in any::<u64>(), limit in any::<u64>()) {
        let range = SizeRange { required_bytes: required, limit_bytes: limit };
        if let Ok(size) = range.decide(VolumeMode::Block, None) {
            prop_assert!(range.admits(size.capacity_bytes));
            prop_assert!(size.capacity_bytes > 0);
        }
        if let Ok(size) = range.decide_expansion() {
            prop_assert!(range.admits(size.capacity_bytes));
        }
    }

    #[test]
    fn a_token_is_ours_or_refused(token in ".*", max_entries in any::<i32>()) {
        if let Ok(page) = page::parse(max_entries, &token, ids::is_volume_id) {
            prop_assert!(page.max >= 1 && page.max <= page::MAX_ENTRIES);
            prop_assert!(page.after.is_none_or(|id| ids::is_volume_id(&id)));
        }
    }
}

use pool::record::Timestamp;

use super::*;

fn record() -> VolumeRecord {
    let id = VolumeId::from_name("one");
    VolumeRecord {
        id: id.clone(),
        name: "one".to_owned(),
        created: Timestamp(1),
        generation: 1,
        requested_bytes: 1 << 30,
        size_bytes: 1 << 30,
        growing_to_bytes: None,
        provisioning: Provisioning::Thin,
        mode: VolumeMode::Filesystem(Format {
            fs: FsType::Xfs,
            state: FormatState::Unformatted,
        }),
        access_modes: vec!["A".to_owned(), "B".to_owned()],
        source: None,
        lineage: id,
        staged: false,
    }
}

#[test]
fn an_object_made_from_a_record_does_not_differ_from_it() {
    assert_eq!(difference(&spec_of("n", &record()), &record()), None);
    let mut spec = spec_of("n", &record());
    spec.access_modes = vec!["B".to_owned(), "A".to_owned(), "B".to_owned()];
    spec.size_bytes *= 2;
    assert_eq!(difference(&spec, &record()), None);
}

#[test]
fn the_first_difference_is_named() {
    type Change = fn(&mut LocalVolumeSpec);
    let changes: [(Change, &str); 5] = [
        (
            |spec| spec.name = "two".to_owned(),
            "name is \"one\", the object asks for \"two\"",
        ),
        (
            |spec| spec.fs_type = Some(api::FsType::Ext4),
            "fsType is \"xfs\", the object asks for \"ext4\"",
        ),
        (
            |spec| spec.provisioning = api::Provisioning::Thick,
            "provisioning is \"thin\", the object asks for \"thick\"",
        ),
        (
            |spec| spec.access_modes.clear(),
            "accessModes is [\"A\",\"B\"], the object asks for []",
        ),
        (
            |spec| {
                spec.source = Some(api::Source {
                    snapshot: Some("s".to_owned()),
                    volume: None,
                });
            },
            "source is not set, the object asks for {\"snapshot\":\"s\"}",
        ),
    ];
    for (change, expected) in changes {
        let mut spec = spec_of("n", &record());
        change(&mut spec);
        assert_eq!(difference(&spec, &record()).as_deref(), Some(expected));
    }
}

//! What the callers rely on, and that the documentation is the table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tonic::Code;

use super::markdown::SECTIONS;
use super::{Failure, Kind, Rpc, answer, code, is_success, markdown, status, why};

/// The codes after which kubelet and the sidecars remember that there may be a result.
const NON_FINAL: [Code; 5] = [
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Unavailable,
    Code::ResourceExhausted,
    Code::Aborted,
];

const MAKES_OR_CHANGES: [Rpc; 6] = [
    Rpc::CreateVolume,
    Rpc::CreateSnapshot,
    Rpc::ControllerExpandVolume,
    Rpc::NodeStageVolume,
    Rpc::NodePublishVolume,
    Rpc::NodeExpandVolume,
];

#[test]
fn the_documentation_is_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/error-codes.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let mut file = std::fs::File::create(&path).expect("create docs/error-codes.md");
        std::io::Write::write_all(&mut file, markdown().as_bytes()).expect("write");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == markdown(),
        "docs/error-codes.md is not what the table says; run UPDATE_DOCS=1 cargo test -p proto"
    );
}

#[test]
fn every_rpc_is_documented_once_beside_rpcs_with_the_same_answers() {
    let mut seen = BTreeMap::new();
    for section in SECTIONS {
        for rpc in section {
            *seen.entry(*rpc).or_insert(0) += 1;
            for kind in Kind::ALL {
                let (first, this) = (answer(section[0], kind), answer(*rpc, kind));
                assert_eq!(
                    (first.code, first.why),
                    (this.code, this.why),
                    "{rpc} {kind:?}"
                );
            }
        }
    }
    assert_eq!(seen, Rpc::ALL.iter().map(|rpc| (*rpc, 1)).collect());
}

#[test]
fn every_cell_says_why_in_one_line() {
    for rpc in Rpc::ALL {
        for kind in Kind::ALL {
            let text = why(rpc, kind);
            assert!(text.len() > 15, "{rpc} {kind:?}: {text}");
            assert!(
                !text.contains(['\n', '|']) && !text.contains("  "),
                "{rpc} {kind:?}: {text}"
            );
            assert!(!text.ends_with('.'), "{rpc} {kind:?}: {text}");
        }
    }
}

#[test]
fn an_unknown_result_is_never_final() {
    for rpc in MAKES_OR_CHANGES {
        for kind in [Kind::Uncertain, Kind::Busy, Kind::Unavailable] {
            assert!(NON_FINAL.contains(&code(rpc, kind)), "{rpc} {kind:?}");
        }
    }
}

#[test]
fn what_was_undone_is_final() {
    for rpc in MAKES_OR_CHANGES {
        for kind in [
            Kind::Io,
            Kind::Corrupt,
            Kind::Precondition,
            Kind::InvalidArgument,
        ] {
            assert!(!NON_FINAL.contains(&code(rpc, kind)), "{rpc} {kind:?}");
        }
    }
}

#[test]
fn removing_what_is_gone_is_a_success() {
    for rpc in [
        Rpc::DeleteVolume,
        Rpc::DeleteSnapshot,
        Rpc::NodeUnstageVolume,
        Rpc::NodeUnpublishVolume,
    ] {
        assert!(is_success(rpc, Kind::NotFound), "{rpc}");
    }
}

#[test]
fn success_on_failure_is_only_gone_or_not_ready() {
    for rpc in Rpc::ALL {
        for kind in Kind::ALL.into_iter().filter(|kind| is_success(rpc, *kind)) {
            let expected = rpc == Rpc::Probe || kind == Kind::NotFound;
            assert!(expected, "{rpc} {kind:?}");
        }
    }
}

#[test]
fn deleting_from_a_pool_that_is_away_is_no_success() {
    for rpc in [Rpc::DeleteVolume, Rpc::DeleteSnapshot] {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::NotFound) {
            assert!(!is_success(rpc, kind), "{rpc} {kind:?}");
        }
    }
}

#[test]
fn a_combination_that_does_not_occur_is_internal() {
    for rpc in Rpc::ALL {
        for kind in Kind::ALL {
            let cell = answer(rpc, kind);
            assert!(cell.occurs || cell.code == Code::Internal, "{rpc} {kind:?}");
        }
    }
}

#[test]
fn the_codes_csi_demands_are_answered() {
    for (rpc, kind, expected) in [
        (Rpc::CreateVolume, Kind::NotFound, Code::NotFound),
        (Rpc::CreateVolume, Kind::Conflict, Code::AlreadyExists),
        (Rpc::CreateVolume, Kind::NoSpace, Code::ResourceExhausted),
        (Rpc::CreateVolume, Kind::OutOfRange, Code::OutOfRange),
        (Rpc::CreateVolume, Kind::Busy, Code::Aborted),
        (Rpc::DeleteVolume, Kind::InUse, Code::FailedPrecondition),
        (Rpc::CreateSnapshot, Kind::Conflict, Code::AlreadyExists),
        (Rpc::CreateSnapshot, Kind::NoSpace, Code::ResourceExhausted),
        (Rpc::ListVolumes, Kind::BadToken, Code::Aborted),
        (Rpc::ListSnapshots, Kind::BadToken, Code::Aborted),
        (
            Rpc::ControllerExpandVolume,
            Kind::OutOfRange,
            Code::OutOfRange,
        ),
        (
            Rpc::NodePublishVolume,
            Kind::InUse,
            Code::FailedPrecondition,
        ),
        (Rpc::NodePublishVolume, Kind::Conflict, Code::AlreadyExists),
        (Rpc::NodeGetVolumeStats, Kind::NotFound, Code::NotFound),
        (
            Rpc::ControllerPublishVolume,
            Kind::Unimplemented,
            Code::Unimplemented,
        ),
    ] {
        assert_eq!(code(rpc, kind), expected, "{rpc} {kind:?}");
    }
}

#[test]
fn a_status_is_never_ok_and_never_without_a_message() {
    for rpc in Rpc::ALL {
        for kind in Kind::ALL {
            let status = status(rpc, &Failure::new(kind, ""));
            assert_ne!(status.code(), Code::Ok, "{rpc} {kind:?}");
            assert!(!status.message().is_empty(), "{rpc} {kind:?}");
            assert!(status.details().is_empty(), "{rpc} {kind:?}");
        }
    }
}

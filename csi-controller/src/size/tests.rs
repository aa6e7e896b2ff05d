//! The rules of sizes as a table.

use proto::csi::v1::CapacityRange;
use proto::errors::Kind;

use super::{DEFAULT_BYTES, EXT4_MINIMUM_BYTES, Size, SizeRange, SourceSize, XFS_MINIMUM_BYTES};
use crate::model::{FsType, VolumeMode};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const EXT4: VolumeMode = VolumeMode::Filesystem(FsType::Ext4);
const XFS: VolumeMode = VolumeMode::Filesystem(FsType::Xfs);

fn range(required_bytes: u64, limit_bytes: u64) -> SizeRange {
    SizeRange {
        required_bytes,
        limit_bytes,
    }
}

fn size(requested_bytes: u64, capacity_bytes: u64) -> Size {
    Size {
        requested_bytes,
        capacity_bytes,
    }
}

#[test]
fn a_range_that_contradicts_itself_is_invalid() {
    for (required_bytes, limit_bytes) in [(-1, 0), (0, -1), (i64::MIN, i64::MIN), (2, 1)] {
        let range = CapacityRange {
            required_bytes,
            limit_bytes,
        };
        let failure = SizeRange::parse(Some(&range)).expect_err("invalid");
        assert_eq!(failure.kind, Kind::InvalidArgument, "{range:?}");
    }
}

#[test]
fn a_range_that_is_absent_says_nothing() {
    assert_eq!(
        SizeRange::parse(None).expect("absent"),
        SizeRange::default()
    );
}

#[test]
fn a_new_volume_has_the_size_asked_for_rounded_up() {
    for (asked, mode, expected) in [
        (range(0, 0), EXT4, size(DEFAULT_BYTES, DEFAULT_BYTES)),
        (range(1, 0), EXT4, size(1, EXT4_MINIMUM_BYTES)),
        (range(10 * MIB + 1, 0), EXT4, size(10 * MIB + 1, 11 * MIB)),
        (
            range(10_000_000_000, 0),
            EXT4,
            size(10_000_000_000, 9537 * MIB),
        ),
        (range(10 * GIB, 10 * GIB), EXT4, size(10 * GIB, 10 * GIB)),
        (range(MIB, 0), XFS, size(MIB, XFS_MINIMUM_BYTES)),
        (range(MIB, 0), VolumeMode::Block, size(MIB, MIB)),
        (range(0, 2 * GIB), EXT4, size(GIB, GIB)),
        (range(0, 12 * MIB + 1), EXT4, size(12 * MIB, 12 * MIB)),
        (
            range(0, 5 * MIB + 1),
            VolumeMode::Block,
            size(5 * MIB, 5 * MIB),
        ),
    ] {
        assert_eq!(
            asked.decide(mode, None).expect("possible"),
            expected,
            "{asked:?}"
        );
    }
}

#[test]
fn a_size_that_cannot_be_is_out_of_range() {
    let source = SourceSize {
        requested_bytes: 2 * GIB,
        image_bytes: 2 * GIB,
    };
    for (asked, mode, source) in [
        (range(1, 1), EXT4, None),
        (range(0, 1), EXT4, None),
        (range(11 * MIB + 1, 12 * MIB - 1), EXT4, None),
        (range(MIB, 9 * MIB), EXT4, None),
        (range(0, 9 * MIB), EXT4, None),
        (range(MIB, 299 * MIB), XFS, None),
        (range(i64::MAX as u64, 0), EXT4, None),
        (range(u64::MAX, 0), EXT4, None),
        (range(GIB, 0), EXT4, Some(source)),
        (range(0, GIB), EXT4, Some(source)),
    ] {
        let failure = asked.decide(mode, source).expect_err("impossible");
        assert_eq!(failure.kind, Kind::OutOfRange, "{asked:?} {mode}");
    }
}

#[test]
fn a_copy_is_at_least_as_large_as_its_source() {
    let source = SourceSize {
        requested_bytes: 10 * MIB,
        image_bytes: XFS_MINIMUM_BYTES,
    };
    // The image of the source was rounded up for xfs; as a raw device all of it must fit too.
    let copy = range(0, 0)
        .decide(VolumeMode::Block, Some(source))
        .expect("possible");
    assert_eq!(copy, size(10 * MIB, XFS_MINIMUM_BYTES));
    let larger = range(GIB, 0).decide(XFS, Some(source)).expect("possible");
    assert_eq!(larger, size(GIB, GIB));
}

#[test]
fn a_claim_is_restored_by_its_own_manifest() {
    let requested = 10_000_000_000;
    let first = range(requested, 0).decide(EXT4, None).expect("possible");
    let source = SourceSize {
        requested_bytes: first.requested_bytes,
        image_bytes: first.capacity_bytes,
    };
    assert_eq!(
        range(requested, 0)
            .decide(EXT4, Some(source))
            .expect("possible"),
        first
    );
}

#[test]
fn an_expansion_needs_a_size_and_rounds_it() {
    let empty = range(0, 0).decide_expansion().expect_err("no size");
    assert_eq!(empty.kind, Kind::InvalidArgument);
    assert_eq!(
        range(MIB + 1, 0).decide_expansion().expect("possible"),
        size(MIB + 1, 2 * MIB)
    );
    assert_eq!(
        range(0, GIB).decide_expansion().expect("only a limit"),
        size(0, 0)
    );
    for impossible in [range(MIB + 1, 2 * MIB - 1), range(i64::MAX as u64, 0)] {
        let failure = impossible.decide_expansion().expect_err("impossible");
        assert_eq!(failure.kind, Kind::OutOfRange, "{impossible:?}");
    }
}

#[test]
fn an_existing_volume_fits_if_its_size_lies_in_the_range() {
    assert!(range(0, 0).admits(GIB));
    assert!(range(GIB, 0).admits(2 * GIB));
    assert!(range(GIB, GIB).admits(GIB));
    assert!(!range(2 * GIB, 0).admits(GIB));
    assert!(!range(0, MIB).admits(GIB));
}

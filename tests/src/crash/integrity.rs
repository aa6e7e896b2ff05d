//! The data of snapshots is digested, held against its digest, and found damaged.

use pool::fault::Operation;
use tonic::Status;

use super::case::{Case, SMALL, snapshot_id};
use super::scenario::{Scenario, Story};
use crate::client::{accepted, refused};
use crate::{content, csi, integrity, requests};

const NAME: &str = "digested";
const RESTORED: &str = "restored-from-digested";
/// A byte of the data of the source, on the disk.
const FLIPPED: u64 = 4711;

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let scenario = |name, operations, story| Scenario {
        name,
        operations,
        except: &[],
        at_start: false,
        story,
    };
    vec![
        scenario(
            "digest of a snapshot",
            &[Operation::DigestSnapshot, Operation::ReplaceRecord],
            || Box::new(Digest),
        ),
        scenario(
            "scrub of a sound snapshot",
            &[Operation::ScrubSnapshot],
            || Box::new(Scrub),
        ),
        scenario(
            "mark of a damaged snapshot",
            &[Operation::MarkSnapshot],
            || Box::new(Mark),
        ),
    ]
}

fn cut(case: &Case<'_>) -> Result<(), Status> {
    case.csi
        .create_snapshot(integrity::digested(NAME, &case.source()))
        .map(drop::<csi::CreateSnapshotResponse>)
}

/// Holds the snapshot against its record, by its owner. How many problems there are.
fn problems(case: &Case<'_>) -> Result<usize, Status> {
    let uuid = integrity::pool_uuid(case.pool());
    let answer = case.csi.verify_snapshot(&uuid, &snapshot_id(NAME))?;
    Ok(answer.problems.len())
}

fn restore(case: &Case<'_>) -> Result<csi::CreateVolumeResponse, Status> {
    let request = requests::volume(RESTORED, SMALL, requests::block());
    case.csi
        .create_volume(requests::from_snapshot(request, &snapshot_id(NAME)))
}

/// The snapshot is there, not marked, holds what its source holds, and has the digest of that, at once or after a moment.
#[track_caller]
fn is_sound(case: &Case<'_>) {
    let id = snapshot_id(NAME);
    assert!(case.has_snapshot(&id), "the acknowledged snapshot is gone");
    let digest = integrity::wait_for_digest(case.pool(), &id);
    let expected = integrity::digest_of_disk(&case.image(&case.source()));
    assert_eq!(digest, expected, "a digest of something else");
    assert_eq!(integrity::record(case.pool(), &id).damage, None);
    let restored = accepted(restore(case)).volume.expect("a volume").volume_id;
    let restored_digest = content::digest(&case.image(&restored));
    assert_eq!(restored_digest, case.source_digest());
    accepted(case.csi.delete(&restored));
}

/// The steps come after the answer: the snapshot is there in any case, and the digest is made once more.
struct Digest;

impl Story for Digest {
    fn prepare(&mut self, _case: &mut Case<'_>) {}

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        cut(case)
    }

    fn verify(&mut self, case: &Case<'_>, _acknowledged: bool) {
        is_sound(case);
    }
}

struct Scrub;

impl Story for Scrub {
    fn prepare(&mut self, case: &mut Case<'_>) {
        accepted(cut(case));
        let _made = integrity::wait_for_digest(case.pool(), &snapshot_id(NAME));
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        let found = problems(case)?;
        assert_eq!(found, 0, "nothing is wrong with it");
        Ok(())
    }

    fn verify(&mut self, case: &Case<'_>, _acknowledged: bool) {
        is_sound(case);
    }
}

/// Whatever becomes of the mark, the image stays as it was found. What was acknowledged is marked.
struct Mark;

impl Mark {
    fn flip(case: &Case<'_>) {
        let id = snapshot_id(NAME);
        let data = integrity::record(case.pool(), &id).data_offset;
        integrity::flip(&case.snapshot_file(&id), data + FLIPPED);
    }
}

impl Story for Mark {
    fn prepare(&mut self, case: &mut Case<'_>) {
        accepted(cut(case));
        let _made = integrity::wait_for_digest(case.pool(), &snapshot_id(NAME));
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        Self::flip(case);
        let found = problems(case)?;
        assert!(found > 0, "a byte was flipped");
        Ok(())
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let id = snapshot_id(NAME);
        let marked = integrity::record(case.pool(), &id).damage.is_some();
        assert!(marked || !acknowledged, "the acknowledged mark is gone");
        if marked {
            refused(restore(case), tonic::Code::DataLoss);
        }
        // As it was, so that the pool is in order: the mark goes when somebody asks and nothing is wrong.
        Self::flip(case);
        assert_eq!(problems(case).expect("the server answers"), 0);
        is_sound(case);
    }
}

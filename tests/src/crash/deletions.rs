//! Volumes and snapshots are deleted, and the trash is emptied behind that.

use pool::fault::Operation;
use tonic::Status;

use super::case::{Case, SMALL, snapshot_id, volume_id};
use super::scenario::{Scenario, Story};
use crate::{content, requests};

const VOLUME: &str = "doomed";
const CUT: &str = "doomed-cut";
const RESTORED: &str = "restored";

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "delete a volume",
            operations: &[Operation::DeleteVolume, Operation::EmptyTrash],
            except: &[],
            at_start: false,
            story: || Box::new(DeleteVolume::default()),
        },
        Scenario {
            name: "delete a snapshot",
            operations: &[Operation::DeleteSnapshot, Operation::EmptyTrash],
            except: &[],
            at_start: false,
            story: || Box::new(DeleteSnapshot::default()),
        },
    ]
}

#[derive(Default)]
struct DeleteVolume {
    digest: String,
    cut_digest: String,
}

impl Story for DeleteVolume {
    fn prepare(&mut self, case: &mut Case<'_>) {
        let id = case.filled(VOLUME, SMALL);
        let cut = case.csi.made_snapshot(requests::snapshot(CUT, &id));
        self.digest = content::digest(&case.image(&id));
        self.cut_digest = content::digest(&case.snapshot_file(&cut.snapshot_id));
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        case.csi.delete(&volume_id(VOLUME))
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let id = volume_id(VOLUME);
        if case.listed(&id).is_some() {
            assert!(!acknowledged, "a deleted volume has come back");
            assert_eq!(content::digest(&case.image(&id)), self.digest);
        } else {
            assert!(!case.image(&id).exists(), "it is there and not listed");
        }
        let cut = snapshot_id(CUT);
        assert!(case.has_snapshot(&cut), "its snapshot went with it");
        assert_eq!(content::digest(&case.snapshot_file(&cut)), self.cut_digest);
    }
}

#[derive(Default)]
struct DeleteSnapshot {
    cut_digest: String,
}

impl Story for DeleteSnapshot {
    fn prepare(&mut self, case: &mut Case<'_>) {
        let request = requests::snapshot(CUT, &case.source());
        let cut = case.csi.made_snapshot(request).snapshot_id;
        let request = requests::volume(RESTORED, SMALL, requests::block());
        let _volume = case.csi.made_volume(requests::from_snapshot(request, &cut));
        self.cut_digest = content::digest(&case.snapshot_file(&cut));
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        case.csi.delete_cut(&snapshot_id(CUT))
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let cut = snapshot_id(CUT);
        if case.has_snapshot(&cut) {
            assert!(!acknowledged, "a deleted snapshot has come back");
            assert_eq!(content::digest(&case.snapshot_file(&cut)), self.cut_digest);
        } else {
            assert!(
                !case.snapshot_file(&cut).exists(),
                "it is there and not listed"
            );
        }
        let restored = case.image(&volume_id(RESTORED));
        assert_eq!(
            content::digest(&restored),
            case.source_digest(),
            "the volume restored from it has changed"
        );
    }
}

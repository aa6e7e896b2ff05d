//! A snapshot is compressed in the background, after it was acknowledged.

use pool::fault::Operation;
use tonic::Status;

use super::case::{Case, SMALL, snapshot_id};
use super::scenario::{Scenario, Story};
use crate::client::accepted;
use crate::packing::{self, Packing};
use crate::scratch_fs::MIB;
use crate::{content, csi, requests, wait};

const NAME: &str = "packed";
const RESTORED: &str = "restored";

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "compress a snapshot",
        operations: &[Operation::RepackSnapshot],
        except: &[],
        at_start: false,
        story: || Box::new(Compress),
    }]
}

struct Compress;

impl Story for Compress {
    fn prepare(&mut self, _case: &mut Case<'_>) {}

    /// The call is acknowledged long before; the act is over when the image is compressed and the one before it freed, which
    /// begins when the new one is durable.
    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        let id = snapshot_id(NAME);
        case.csi
            .create_snapshot(requests::compressed_snapshot(NAME, &case.source()))
            .map(drop::<csi::CreateSnapshotResponse>)?;
        let mut lost = None;
        let over = wait::holds_within(packing::LIMIT, || {
            let request = csi::GetSnapshotRequest {
                snapshot_id: id.clone(),
                ..csi::GetSnapshotRequest::default()
            };
            lost = case.csi.get_snapshot(request).err();
            lost.is_some()
                || (packing::of(case.pool(), &id) == Some(Packing::Done) && case.is_tidy())
        });
        match lost {
            Some(status) => Err(status),
            None => {
                assert!(over, "not compressed within {:?}", packing::LIMIT);
                Ok(())
            }
        }
    }

    /// Whether the image is compressed by now or not: the disk is the same.
    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let id = snapshot_id(NAME);
        if acknowledged {
            assert_eq!(packing::of(case.pool(), &id), Some(Packing::Done));
        }
        if !case.has_snapshot(&id) {
            assert!(
                !case.snapshot_file(&id).exists(),
                "it is there and not listed"
            );
            return;
        }
        let request = requests::volume(RESTORED, SMALL + MIB, requests::block());
        let volume = case.csi.made_volume(requests::from_snapshot(request, &id));
        let image = case.image(&volume.volume_id);
        assert_eq!(
            content::digest_of(&image, 0, SMALL),
            case.source_digest(),
            "the snapshot differs from its source"
        );
        assert_eq!(content::first_not_zero(&image, SMALL, MIB), None);
        accepted(case.csi.delete(&volume.volume_id));
    }
}

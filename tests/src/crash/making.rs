//! Volumes are made: empty, restored, cloned.

use std::os::unix::fs::MetadataExt;

use pool::fault::Operation;
use tonic::Status;

use super::case::{Case, SMALL, volume_id};
use super::scenario::{Scenario, Story};
use crate::scratch_fs::MIB;
use crate::{content, csi, requests};

const NAME: &str = "made";
/// Larger than the source, so that the new part is seen too.
const BYTES: u64 = SMALL + 8 * MIB;

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    const EMPTY: &[Operation] = &[Operation::CreateVolume];
    const FILLED: &[Operation] = &[Operation::CreateVolume, Operation::FillVolume];
    let scenario = |name, operations, story| Scenario {
        name,
        operations,
        except: &[],
        at_start: false,
        story,
    };
    vec![
        scenario("create thin", EMPTY, || {
            Box::new(Make(From::Nothing, "thin"))
        }),
        scenario("create thick", EMPTY, || {
            Box::new(Make(From::Nothing, "thick"))
        }),
        scenario("restore", FILLED, || Box::new(Make(From::Snapshot, "thin"))),
        scenario("clone", FILLED, || Box::new(Make(From::Volume, "thick"))),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Nothing,
    Snapshot,
    Volume,
}

struct Make(From, &'static str);

impl Story for Make {
    fn prepare(&mut self, _case: &mut Case<'_>) {}

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        let request = requests::volume(NAME, BYTES, requests::block());
        let request = requests::with_parameter(request, "provisioning", self.1);
        let request = match self.0 {
            From::Nothing => request,
            From::Snapshot => requests::from_snapshot(request, &case.source_cut()),
            From::Volume => requests::from_volume(request, &case.source()),
        };
        case.csi
            .create_volume(request)
            .map(drop::<csi::CreateVolumeResponse>)
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let id = volume_id(NAME);
        let image = case.image(&id);
        let Some(volume) = case.listed(&id) else {
            assert!(!acknowledged, "the acknowledged volume is gone");
            assert!(!image.exists(), "it is there and not listed");
            return;
        };
        assert_eq!(volume.capacity_bytes, requests::signed(BYTES));
        assert_eq!(content::size_of(&image), BYTES);
        let copied = if self.0 == From::Nothing { 0 } else { SMALL };
        if copied > 0 {
            let digest = content::digest_of(&image, 0, copied);
            assert_eq!(digest, case.source_digest(), "it differs from its source");
        }
        assert_eq!(
            content::first_not_zero(&image, copied, BYTES - copied),
            None,
            "new space reads as zero"
        );
        if self.1 == "thick" {
            let allocated = std::fs::metadata(&image).expect("stat").blocks() * 512;
            assert!(
                allocated >= BYTES,
                "thick, but only {allocated} bytes are allocated"
            );
        }
    }
}

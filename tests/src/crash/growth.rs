//! Volumes grow, and a start finds one that stopped growing half way.

use pool::fault::{Operation, Step};
use tonic::Status;

use super::case::{Case, SMALL, volume_id};
use super::scenario::{Scenario, Story, fault_at};
use crate::kubelet::Attachment;
use crate::scratch_fs::MIB;
use crate::{content, csi, requests};

const NAME: &str = "growing";
const GOAL: u64 = SMALL + 8 * MIB;

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    const EXPANSION: &[Operation] = &[Operation::ExpandVolume, Operation::ReplaceRecord];
    let scenario = |name, story| Scenario {
        name,
        operations: EXPANSION,
        except: &[],
        at_start: false,
        story,
    };
    vec![
        scenario("expand thin", || Box::new(Grow::with("thin"))),
        scenario("expand thick", || Box::new(Grow::with("thick"))),
        Scenario {
            name: "start after a stopped expansion",
            operations: &[
                Operation::Recovery,
                Operation::ExpandVolume,
                Operation::ReplaceRecord,
            ],
            // The intent is there already.
            except: &[Step::ExpandReserved, Step::ExpandIntentRecorded],
            at_start: true,
            story: || Box::new(Resume(Grow::with("thick"))),
        },
    ]
}

/// Scenarios of volumes that are attached.
#[must_use]
pub fn attached() -> Vec<Scenario> {
    vec![Scenario {
        name: "expand a published block volume",
        operations: &[Operation::ExpandVolume, Operation::ReplaceRecord],
        except: &[],
        at_start: false,
        story: || {
            Box::new(Grow {
                publish: true,
                ..Grow::with("thin")
            })
        },
    }]
}

#[derive(Default)]
struct Grow {
    provisioning: &'static str,
    publish: bool,
    digest: String,
    attachment: Option<Attachment>,
}

impl Grow {
    fn with(provisioning: &'static str) -> Self {
        Self {
            provisioning,
            ..Self::default()
        }
    }

    fn grow(&self, case: &Case<'_>) -> Result<(), Status> {
        let request = requests::expand(&volume_id(NAME), GOAL, requests::block());
        case.csi
            .controller_expand_volume(request)
            .map(drop::<csi::ControllerExpandVolumeResponse>)
    }
}

impl Story for Grow {
    fn prepare(&mut self, case: &mut Case<'_>) {
        let request = requests::volume(NAME, SMALL, requests::block());
        let request = requests::with_parameter(request, "provisioning", self.provisioning);
        let id = case.csi.made_volume(request).volume_id;
        let image = case.image(&id);
        content::write_at(&image, SMALL - MIB, &content::pattern(NAME, 1 << 20));
        self.digest = content::digest(&image);
        if self.publish {
            let attachment = case.attachment(&id, "pod-1", &requests::block());
            attachment.up(&case.csi);
            self.attachment = Some(attachment);
        }
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        self.grow(case)
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        let id = volume_id(NAME);
        let volume = case.listed(&id).expect("the volume is there");
        let bytes = u64::try_from(volume.capacity_bytes).expect("a size");
        let allowed: &[u64] = if acknowledged {
            &[GOAL]
        } else {
            &[SMALL, GOAL]
        };
        assert!(allowed.contains(&bytes), "{bytes} of {allowed:?}");
        let image = case.image(&id);
        assert_eq!(
            content::size_of(&image),
            bytes,
            "the image has another size"
        );
        assert_eq!(
            content::digest_of(&image, 0, SMALL),
            self.digest,
            "what was there before has changed"
        );
        assert_eq!(
            content::first_not_zero(&image, SMALL, bytes - SMALL),
            None,
            "new space reads as zero"
        );
        // After a reboot nothing is published until kubelet asks for it again.
        if let Some(attachment) = self.attachment.as_ref().filter(|at| at.target.exists()) {
            assert_eq!(
                content::size_of(&attachment.target),
                bytes,
                "the device's size"
            );
        }
    }

    fn clear(&mut self, case: &Case<'_>) {
        if let Some(attachment) = self.attachment.take() {
            attachment.down(&case.csi);
        }
    }
}

/// The server died when the growth was recorded as intended; what is crashed is the start after that.
struct Resume(Grow);

impl Story for Resume {
    fn prepare(&mut self, case: &mut Case<'_>) {
        self.0.prepare(case);
        let fault = fault_at(Step::ExpandIntentRecorded, "kill");
        let acknowledged = case.die_in(&fault, |case| self.0.grow(case));
        assert!(!acknowledged);
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        self.0.grow(case)
    }

    /// The intent was durable, so the start must have finished the growth, acknowledged or not.
    fn verify(&mut self, case: &Case<'_>, _acknowledged: bool) {
        assert!(
            case.server
                .log_text()
                .contains("finished an interrupted expansion"),
            "{}",
            case.server.log_tail()
        );
        self.0.verify(case, true);
    }
}

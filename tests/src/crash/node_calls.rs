//! Volumes are staged, published, unpublished and unstaged.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use pool::fault::{Operation, Step};
use tonic::Status;

use super::case::{Case, volume_id};
use super::scenario::{Scenario, Story};
use crate::client::accepted;
use crate::kubelet::Attachment;
use crate::scratch_fs::MIB;
use crate::{content, csi, loops, mounts, requests};

const NAME: &str = "used";
/// XFS needs 300 MiB.
const BYTES: u64 = 320 * MIB;

const STAGE: &[Operation] = &[Operation::StageVolume, Operation::ReplaceRecord];
/// What staging does only for a filesystem.
const FILESYSTEM_ONLY: &[Step] = &[
    Step::StageFormatting,
    Step::StageMade,
    Step::StageFormatted,
    Step::StageChecked,
    Step::StageMounted,
    Step::StageGrown,
];

/// The scenarios of this file.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let scenario = |name, operations, except, story| Scenario {
        name,
        operations,
        except,
        at_start: false,
        story,
    };
    let publish: &[Operation] = &[Operation::PublishVolume];
    let unpublish: &[Operation] = &[Operation::UnpublishVolume];
    let unstage: &[Operation] = &[Operation::UnstageVolume];
    vec![
        scenario("stage a block volume", STAGE, FILESYSTEM_ONLY, || {
            Box::new(NodeCall::new(Call::Stage, None))
        }),
        scenario("stage ext4", STAGE, &[], || {
            Box::new(NodeCall::new(Call::Stage, Some("ext4")))
        }),
        scenario("stage xfs", STAGE, &[], || {
            Box::new(NodeCall::new(Call::Stage, Some("xfs")))
        }),
        scenario("publish a block volume", publish, &[], || {
            Box::new(NodeCall::new(Call::Publish, None))
        }),
        scenario("publish xfs", publish, &[], || {
            Box::new(NodeCall::new(Call::Publish, Some("xfs")))
        }),
        scenario("unpublish a block volume", unpublish, &[], || {
            Box::new(NodeCall::new(Call::Unpublish, None))
        }),
        scenario("unpublish ext4", unpublish, &[], || {
            Box::new(NodeCall::new(Call::Unpublish, Some("ext4")))
        }),
        scenario("unstage a block volume", unstage, &[], || {
            Box::new(NodeCall::new(Call::Unstage, None))
        }),
        scenario("unstage xfs", unstage, &[], || {
            Box::new(NodeCall::new(Call::Unstage, Some("xfs")))
        }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Stage,
    Publish,
    Unpublish,
    Unstage,
}

struct NodeCall {
    call: Call,
    /// `None` for a block volume.
    fs_type: Option<&'static str>,
    attachment: Option<Attachment>,
    marked: bool,
}

/// What the kernel has of the volume.
struct Seen {
    devices: usize,
    staged: usize,
    published: usize,
}

impl NodeCall {
    fn new(call: Call, fs_type: Option<&'static str>) -> Self {
        Self {
            call,
            fs_type,
            attachment: None,
            marked: false,
        }
    }

    fn capability(&self) -> csi::VolumeCapability {
        self.fs_type
            .map_or_else(requests::block, requests::filesystem)
    }

    fn attachment(&self) -> &Attachment {
        self.attachment.as_ref().expect("prepared")
    }

    /// Leaves something in the volume that has to be there ever after.
    fn mark(&mut self) {
        let target = &self.attachment().target;
        let bytes = content::pattern(NAME, 1 << 20);
        if self.fs_type.is_some() {
            let path = target.join("mark");
            let mut file = File::create_new(path).expect("make a file in the volume");
            file.write_all(&bytes).expect("write it");
            file.sync_all().expect("sync it");
            let folder = File::open(target).expect("open its folder");
            folder.sync_all().expect("sync its folder");
        } else {
            content::write_at(target, BYTES - MIB, &bytes);
        }
        self.marked = true;
    }

    fn is_marked(&self) {
        let target = &self.attachment().target;
        let found = if self.fs_type.is_some() {
            content::read_at(&target.join("mark"), 0, 1 << 20)
        } else {
            content::read_at(target, BYTES - MIB, 1 << 20)
        };
        assert!(
            found == content::pattern(NAME, 1 << 20),
            "what was synced to the volume is not there"
        );
    }

    fn seen(&self, case: &Case<'_>) -> Seen {
        let image = std::fs::metadata(case.image(&volume_id(NAME))).expect("the image is there");
        let on_image = |one: &loops::Loop| one.back_inode == image.ino();
        Seen {
            devices: case.loops().iter().filter(|one| on_image(one)).count(),
            staged: mounts::at(&self.attachment().staging).len(),
            published: mounts::at(&self.attachment().target).len(),
        }
    }
}

impl Story for NodeCall {
    fn prepare(&mut self, case: &mut Case<'_>) {
        let request = requests::volume(NAME, BYTES, self.capability());
        let id = case.csi.made_volume(request).volume_id;
        let attachment = case.attachment(&id, "pod-1", &self.capability());
        self.attachment = Some(attachment.clone());
        if self.call != Call::Stage {
            accepted(attachment.stage(&case.csi));
        }
        if matches!(self.call, Call::Unpublish | Call::Unstage) {
            accepted(attachment.publish(&case.csi));
            self.mark();
        }
        if self.call == Call::Unstage {
            accepted(attachment.unpublish(&case.csi));
        }
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        let attachment = self.attachment();
        match self.call {
            Call::Stage => attachment.stage(&case.csi),
            Call::Publish => attachment.publish(&case.csi),
            Call::Unpublish => attachment.unpublish(&case.csi),
            Call::Unstage => attachment.unstage(&case.csi),
        }
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        if acknowledged || self.call != Call::Stage {
            case.is_recorded_as_staged(&volume_id(NAME));
        }
        let seen = self.seen(case);
        let most = seen.devices.max(seen.staged).max(seen.published);
        assert!(most <= 1, "stacked: {seen:?}");
        if !acknowledged || case.rebooted {
            return;
        }
        let target = &self.attachment().target;
        match self.call {
            Call::Stage => {
                let mounted = usize::from(self.fs_type.is_some());
                assert_eq!((seen.devices, seen.staged), (1, mounted), "{seen:?}");
            }
            Call::Publish => assert_eq!((seen.devices, seen.published), (1, 1), "{seen:?}"),
            Call::Unpublish => assert!(!target.exists(), "the target is left"),
            Call::Unstage => assert_eq!(seen.devices + seen.staged, 0, "{seen:?}"),
        }
    }

    /// Whatever happened to it, the volume can be used, and holds what was synced.
    fn clear(&mut self, case: &Case<'_>) {
        let attachment = self.attachment().clone();
        attachment.up(&case.csi);
        if !self.marked {
            self.mark();
        }
        self.is_marked();
        attachment.down(&case.csi);
        assert_eq!(self.seen(case).devices, 0, "a loop device is left");
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} loop devices, {} mounts at the staging path, {} at the target",
            self.devices, self.staged, self.published
        )
    }
}

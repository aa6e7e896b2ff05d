//! Snapshots are cut: of a volume that nobody uses, of a published device, of a mounted filesystem.

use std::cell::{Cell, RefCell};
use std::path::Path;

use pool::fault::Operation;
use tonic::Status;

use super::case::{Case, SMALL, snapshot_id, volume_id};
use super::scenario::{Fault, Scenario, Story};
use crate::client::accepted;
use crate::file_writer::{self, FileWriter};
use crate::kubelet::Attachment;
use crate::scratch_fs::MIB;
use crate::{content, csi, requests};

const NAME: &str = "cut";
const SOURCE: &str = "in-use";
const RESTORED: &str = "restored";
/// XFS needs 300 MiB.
const FILESYSTEM_BYTES: u64 = 384 * MIB;

const STEPS: &[Operation] = &[Operation::CreateSnapshot];

/// Scenarios of volumes that are not attached.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "snapshot of an idle volume",
        operations: STEPS,
        except: &[],
        at_start: false,
        story: || {
            Box::new(OfBlock {
                attachment: None,
                publish: false,
            })
        },
    }]
}

/// Scenarios of volumes that are attached.
#[must_use]
pub fn attached() -> Vec<Scenario> {
    let scenario = |name, story| Scenario {
        name,
        operations: STEPS,
        except: &[],
        at_start: false,
        story,
    };
    vec![
        scenario("snapshot of a published block volume", || {
            Box::new(OfBlock {
                attachment: None,
                publish: true,
            })
        }),
        scenario("snapshot of a mounted ext4", || {
            Box::new(OfMounted::new("ext4"))
        }),
        scenario("snapshot of a mounted xfs", || {
            Box::new(OfMounted::new("xfs"))
        }),
    ]
}

fn cut(case: &Case<'_>, source: &str) -> Result<(), Status> {
    case.csi
        .create_snapshot(requests::snapshot(NAME, source))
        .map(drop::<csi::CreateSnapshotResponse>)
}

/// Whether the snapshot is there. One that is not must not be, wholly.
#[track_caller]
fn is_there(case: &Case<'_>, acknowledged: bool) -> bool {
    let id = snapshot_id(NAME);
    let there = case.has_snapshot(&id);
    assert!(there || !acknowledged, "the acknowledged snapshot is gone");
    assert_eq!(case.snapshot_file(&id).exists(), there, "listed and there");
    there
}

fn restored(case: &Case<'_>, bytes: u64, how: csi::VolumeCapability) -> String {
    let request = requests::volume(RESTORED, bytes, how);
    let request = requests::from_snapshot(request, &snapshot_id(NAME));
    case.csi.made_volume(request).volume_id
}

struct OfBlock {
    publish: bool,
    attachment: Option<Attachment>,
}

impl Story for OfBlock {
    fn prepare(&mut self, case: &mut Case<'_>) {
        if self.publish {
            let attachment = case.attachment(&case.source(), "pod-1", &requests::block());
            attachment.up(&case.csi);
            self.attachment = Some(attachment);
        }
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        cut(case, &case.source())
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        if is_there(case, acknowledged) {
            let volume = restored(case, SMALL, requests::block());
            let digest = content::digest(&case.image(&volume));
            assert_eq!(
                digest,
                case.source_digest(),
                "the snapshot differs from its source"
            );
            accepted(case.csi.delete(&volume));
        }
    }

    fn clear(&mut self, case: &Case<'_>) {
        if let Some(attachment) = self.attachment.take() {
            attachment.down(&case.csi);
        }
    }
}

/// A filesystem to which somebody writes all the time. A kill of the server must not be felt by him; a power loss ends
/// him.
struct OfMounted {
    fs_type: &'static str,
    attachment: Option<Attachment>,
    writer: RefCell<Option<FileWriter>>,
    /// Files that were synced before the first cut, so every cut must hold them.
    safe: Cell<Option<u64>>,
}

impl OfMounted {
    fn new(fs_type: &'static str) -> Self {
        Self {
            fs_type,
            attachment: None,
            writer: RefCell::default(),
            safe: Cell::default(),
        }
    }

    fn capability(&self) -> csi::VolumeCapability {
        requests::filesystem(self.fs_type)
    }

    fn attachment(&self) -> &Attachment {
        self.attachment.as_ref().expect("prepared")
    }

    fn restores(&self, case: &Case<'_>) {
        let id = restored(case, FILESYSTEM_BYTES, self.capability());
        let attachment = case.attachment(&id, "pod-2", &self.capability());
        attachment.up(&case.csi);
        let safe = self.safe.get().expect("acted");
        file_writer::verify(&attachment.target, safe)
            .unwrap_or_else(|why| panic!("the restored filesystem: {why}"));
        attachment.down_and_delete(&case.csi);
    }
}

impl Story for OfMounted {
    fn prepare(&mut self, case: &mut Case<'_>) {
        let request = requests::volume(SOURCE, FILESYSTEM_BYTES, self.capability());
        let id = case.csi.made_volume(request).volume_id;
        let attachment = case.attachment(&id, "pod-1", &self.capability());
        attachment.up(&case.csi);
        let writer = FileWriter::start(&attachment.target);
        writer.advance(3);
        if case.fault == Fault::PowerLoss {
            self.safe.set(Some(writer.stop()));
        } else {
            *self.writer.borrow_mut() = Some(writer);
        }
        self.attachment = Some(attachment);
    }

    fn act(&self, case: &Case<'_>) -> Result<(), Status> {
        if self.safe.get().is_none() {
            self.safe
                .set(self.writer.borrow().as_ref().map(FileWriter::safe));
        }
        cut(case, &volume_id(SOURCE))
    }

    fn verify(&mut self, case: &Case<'_>, acknowledged: bool) {
        if let Some(writer) = self.writer.borrow().as_ref() {
            // Hangs if the filesystem was left frozen.
            writer.advance(3);
        }
        if is_there(case, acknowledged) {
            self.restores(case);
        }
    }

    fn clear(&mut self, case: &Case<'_>) {
        let attachment = self.attachment();
        let safe = self.writer.take().map(FileWriter::stop);
        if safe.is_none() {
            // After the reboot: kubelet brings the pod up again.
            attachment.up(&case.csi);
        }
        holds(
            &attachment.target,
            safe.or(self.safe.get()).expect("prepared"),
        );
        attachment.down(&case.csi);
    }
}

#[track_caller]
fn holds(folder: &Path, safe: u64) {
    file_writer::verify(folder, safe).unwrap_or_else(|why| panic!("the live filesystem: {why}"));
}

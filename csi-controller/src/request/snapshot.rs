//! Requests about snapshots.

use proto::csi::v1::{CreateSnapshotRequest, ListSnapshotsRequest};
use proto::errors::Failure;

use super::{parameters, text};
use crate::backend::{CreateSnapshot, SnapshotFilter};
use crate::ids;
use crate::model::{Checksum, Compression, Snapshot};

/// Checks a CreateSnapshot request.
pub(crate) fn parse_create(request: &CreateSnapshotRequest) -> Result<CreateSnapshot, Failure> {
    let name = text::name(&request.name)?;
    let source_volume_id = text::id("source_volume_id", &request.source_volume_id)?;
    let parameters = parameters::parse_snapshot(&request.parameters)?;
    if request.accessibility_requirements.is_some() {
        return Err(Failure::invalid(
            "accessibility_requirements are not supported for snapshots: a snapshot is on the node \
             of its volume",
        ));
    }
    Ok(CreateSnapshot {
        id: ids::snapshot_id(name),
        name: name.to_owned(),
        source_volume_id: source_volume_id.to_owned(),
        compression: parameters.compression,
        checksum: parameters.checksum,
    })
}

/// The first way in which a snapshot of this name is not what was asked for.
pub(crate) fn difference(asked: &CreateSnapshot, existing: &Snapshot) -> Option<String> {
    if asked.source_volume_id != existing.source_volume_id {
        return Some(format!(
            "it was cut from volume {}",
            existing.source_volume_id
        ));
    }
    if asked.compression != existing.compression {
        let compression = existing.compression.map_or("none", Compression::as_str);
        return Some(format!("its compression is {compression}"));
    }
    let spelled = |checksum: Option<Checksum>| checksum.map_or("none", Checksum::as_str);
    (asked.checksum != existing.checksum)
        .then(|| format!("its checksum is {}", spelled(existing.checksum)))
}

/// Reads the filter of a ListSnapshots request; `None` if it cannot match anything, because it
/// names what no id of ours can be.
pub(crate) fn parse_filter(request: &ListSnapshotsRequest) -> Option<SnapshotFilter> {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let filter = SnapshotFilter {
        source_volume_id: given(&request.source_volume_id),
        snapshot_id: given(&request.snapshot_id),
    };
    let possible = filter
        .source_volume_id
        .as_deref()
        .is_none_or(ids::is_volume_id)
        && filter
            .snapshot_id
            .as_deref()
            .is_none_or(ids::is_snapshot_id);
    possible.then_some(filter)
}

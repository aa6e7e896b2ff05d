//! The steps of the RPCs about snapshots.

use proto::csi::v1::{
    CreateSnapshotRequest, CreateSnapshotResponse, DeleteSnapshotResponse, GetSnapshotResponse,
    ListSnapshotsRequest, ListSnapshotsResponse, list_snapshots_response,
};
use proto::errors::{Failure, Kind, Rpc, is_success};

use super::ControllerService;
use super::volumes::no_such;
use crate::answer;
use crate::backend::Backend;
use crate::ids;
use crate::model::Snapshot;
use crate::request::{page, snapshot, text};

impl<B: Backend> ControllerService<B> {
    pub(super) async fn cut_snapshot(
        &self,
        request: &CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, Failure> {
        let asked = snapshot::parse_create(request)?;
        let made = if ids::is_volume_id(&asked.source_volume_id) {
            self.backend.create_snapshot(asked.clone()).await
        } else {
            Err(no_such("volume", &asked.source_volume_id))
        };
        let snapshot = match made {
            Ok(snapshot) => snapshot,
            Err(failure) if failure.kind == Kind::NotFound => {
                self.cut_before(&asked.id, failure).await?
            }
            Err(failure) => return Err(failure),
        };
        if let Some(difference) = snapshot::difference(&asked, &snapshot) {
            return Err(Failure::new(
                Kind::Conflict,
                format!("snapshot {} exists and differs: {difference}", snapshot.id),
            ));
        }
        Ok(CreateSnapshotResponse {
            snapshot: Some(answer::snapshot(&snapshot)),
        })
    }

    /// The snapshot that an earlier call of this name cut, when the volume is gone by now: a
    /// snapshot outlives its volume, and a caller that never got its answer calls again.
    async fn cut_before(&self, id: &str, failure: Failure) -> Result<Snapshot, Failure> {
        match self.backend.get_snapshot(id).await {
            Ok(snapshot) => Ok(snapshot),
            Err(missing) if missing.kind == Kind::NotFound => Err(failure),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn remove_snapshot(
        &self,
        id: &str,
    ) -> Result<DeleteSnapshotResponse, Failure> {
        let id = text::required("snapshot_id", id)?;
        if ids::is_snapshot_id(id) {
            match self.backend.delete_snapshot(id).await {
                Err(failure) if !is_success(Rpc::DeleteSnapshot, failure.kind) => {
                    return Err(failure);
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(DeleteSnapshotResponse {})
    }

    pub(super) async fn snapshots(
        &self,
        request: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Failure> {
        let page = page::parse(
            request.max_entries,
            &request.starting_token,
            ids::is_snapshot_id,
        )?;
        let Some(filter) = snapshot::parse_filter(request) else {
            return Ok(ListSnapshotsResponse::default());
        };
        let found = self
            .backend
            .list_snapshots(&filter, page.after.as_deref(), page.max)
            .await?;
        let entry = |snapshot: &Snapshot| list_snapshots_response::Entry {
            snapshot: Some(answer::snapshot(snapshot)),
        };
        Ok(ListSnapshotsResponse {
            entries: found.items.iter().map(entry).collect(),
            next_token: page::token(found.next.as_deref()),
        })
    }

    pub(super) async fn snapshot(&self, id: &str) -> Result<GetSnapshotResponse, Failure> {
        let id = text::id("snapshot_id", id)?;
        if !ids::is_snapshot_id(id) {
            return Err(no_such("snapshot", id));
        }
        let snapshot = self.backend.get_snapshot(id).await?;
        Ok(GetSnapshotResponse {
            snapshot: Some(answer::snapshot(&snapshot)),
        })
    }
}

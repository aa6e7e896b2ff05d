//! RPCs about snapshots.

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::{
    DeleteSnapshotRequest, GetSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse,
};
use proto::errors::{Failure, Kind};
use tonic::{Code, Request};

use super::{GIB, MIB, Service, assert_code, block, create, cut, inner, make, service};

async fn delete(service: &Service, snapshot_id: &str) -> Result<(), tonic::Status> {
    let request = DeleteSnapshotRequest {
        snapshot_id: snapshot_id.to_owned(),
        ..<_>::default()
    };
    service
        .delete_snapshot(Request::new(request))
        .await
        .map(|_| ())
}

async fn list(service: &Service, request: ListSnapshotsRequest) -> ListSnapshotsResponse {
    inner(service.list_snapshots(Request::new(request)).await)
}

#[tokio::test]
async fn a_snapshot_tells_the_size_that_was_asked_for_its_source() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB + 1, block()))
        .await
        .expect("made");
    assert_eq!(volume.capacity_bytes, GIB + MIB);
    let snapshot = cut(&service, "s", &volume.volume_id).await.expect("cut");
    assert_eq!(snapshot.size_bytes, GIB + 1);
    assert_eq!(snapshot.source_volume_id, volume.volume_id);
    assert!(snapshot.ready_to_use);
    let created = snapshot.creation_time.expect("time");
    assert_eq!((created.seconds, created.nanos), (1_700_000_000, 1));
    // Only with a capability that is not announced.
    assert!(snapshot.accessible_topology.is_empty());
}

#[tokio::test]
async fn a_snapshot_is_found_again_and_belongs_to_one_volume() {
    let (service, memory) = service();
    let one = make(&service, create("1", GIB, block()))
        .await
        .expect("made");
    let two = make(&service, create("2", GIB, block()))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &one.volume_id).await.expect("cut");
    assert_eq!(
        cut(&service, "s", &one.volume_id).await.expect("found"),
        snapshot
    );
    let message = assert_code(
        cut(&service, "s", &two.volume_id).await,
        Code::AlreadyExists,
    );
    assert!(message.contains(&one.volume_id), "{message}");
    // Also when the volume is gone by now.
    memory.remove_volume(&one.volume_id);
    assert_eq!(
        cut(&service, "s", &one.volume_id).await.expect("found"),
        snapshot
    );
}

#[tokio::test]
async fn a_snapshot_needs_a_volume() {
    let (service, memory) = service();
    for missing in ["fake-vol-id", "../../etc", &crate::ids::volume_id("gone")] {
        assert_code(cut(&service, "s", missing).await, Code::NotFound);
    }
    assert_code(cut(&service, "s", "").await, Code::InvalidArgument);
    assert_code(cut(&service, "", "v").await, Code::InvalidArgument);
    memory.fail_next(Failure::new(Kind::Precondition, "stop the pod first"));
    let id = crate::ids::volume_id("v");
    assert_code(cut(&service, "s", &id).await, Code::FailedPrecondition);
}

#[tokio::test]
async fn deleting_what_is_not_there_succeeds() {
    let (service, memory) = service();
    let volume = make(&service, create("v", GIB, block()))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &volume.volume_id).await.expect("cut");
    delete(&service, &snapshot.snapshot_id)
        .await
        .expect("deleted");
    delete(&service, &snapshot.snapshot_id).await.expect("gone");
    delete(&service, "fake-snapshot-id")
        .await
        .expect("names nothing");
    assert_code(delete(&service, "").await, Code::InvalidArgument);
    memory.fail_next(Failure::new(Kind::Busy, "restoring"));
    assert_code(delete(&service, &snapshot.snapshot_id).await, Code::Aborted);
}

#[tokio::test]
async fn lists_are_filtered_and_an_unknown_filter_is_an_empty_list() {
    let (service, memory) = service();
    let one = make(&service, create("1", GIB, block()))
        .await
        .expect("made");
    let two = make(&service, create("2", GIB, block()))
        .await
        .expect("made");
    let first = cut(&service, "a", &one.volume_id).await.expect("cut");
    cut(&service, "b", &two.volume_id).await.expect("cut");
    let by_id = ListSnapshotsRequest {
        snapshot_id: first.snapshot_id.clone(),
        ..<_>::default()
    };
    let found = list(&service, by_id).await.entries;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].snapshot.as_ref(), Some(&first));
    let source_volume_id = two.volume_id.clone();
    let by_source = ListSnapshotsRequest {
        source_volume_id,
        ..<_>::default()
    };
    assert_eq!(list(&service, by_source).await.entries.len(), 1);
    let unknown = ListSnapshotsRequest {
        snapshot_id: crate::ids::snapshot_id("gone"),
        ..ListSnapshotsRequest::default()
    };
    assert!(list(&service, unknown).await.entries.is_empty());
    let before = memory.calls();
    let foreign = ListSnapshotsRequest {
        source_volume_id: "../x".to_owned(),
        ..<_>::default()
    };
    assert!(list(&service, foreign).await.entries.is_empty());
    assert_eq!(memory.calls(), before);
}

#[tokio::test]
async fn a_list_continues_with_its_token_only() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, block()))
        .await
        .expect("made");
    for name in ["a", "b", "c", "d", "e"] {
        cut(&service, name, &volume.volume_id).await.expect("cut");
    }
    let page = ListSnapshotsRequest {
        max_entries: 2,
        ..ListSnapshotsRequest::default()
    };
    let first = list(&service, page).await;
    assert_eq!(first.entries.len(), 2);
    let next = ListSnapshotsRequest {
        starting_token: first.next_token,
        ..<_>::default()
    };
    let rest = list(&service, next).await;
    assert_eq!((rest.entries.len(), rest.next_token.as_str()), (3, ""));
    let invalid = ListSnapshotsRequest {
        starting_token: "invalid-token".to_owned(),
        ..ListSnapshotsRequest::default()
    };
    assert_code(
        service.list_snapshots(Request::new(invalid)).await,
        Code::Aborted,
    );
}

#[tokio::test]
async fn one_snapshot_is_found_by_its_id() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, block()))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &volume.volume_id).await.expect("cut");
    let get = |snapshot_id: &str| {
        let snapshot_id = snapshot_id.to_owned();
        Request::new(GetSnapshotRequest {
            snapshot_id,
            ..<_>::default()
        })
    };
    let found = inner(service.get_snapshot(get(&snapshot.snapshot_id)).await);
    assert_eq!(found.snapshot, Some(snapshot));
    assert_code(service.get_snapshot(get("")).await, Code::InvalidArgument);
    assert_code(
        service.get_snapshot(get("fake-snapshot-id")).await,
        Code::NotFound,
    );
}

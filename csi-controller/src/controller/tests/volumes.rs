//! RPCs about volumes.

use proto::csi::v1::controller_server::Controller;
use proto::csi::v1::volume_content_source::{SnapshotSource, Type as SourceType, VolumeSource};
use proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetVolumeHealthRequest,
    ControllerGetVolumeRequest, ControllerListVolumeHealthRequest, CreateVolumeRequest,
    DeleteVolumeRequest, GetCapacityRequest, ListVolumesRequest, Topology, TopologyRequirement,
    ValidateVolumeCapabilitiesRequest, VolumeContentSource, VolumeHealthErrorType,
};
use proto::errors::{Failure, Kind};
use tonic::{Code, Request};

use super::memory::NODE;
use super::{GIB, KEY, MIB, Service, assert_code, block, create, cut, inner, make, mount, service};

fn on_node(node: &str) -> Topology {
    Topology {
        segments: [(KEY.to_owned(), node.to_owned())].into(),
    }
}

fn from_snapshot(id: &str) -> Option<VolumeContentSource> {
    let source = SnapshotSource {
        snapshot_id: id.to_owned(),
    };
    Some(VolumeContentSource {
        r#type: Some(SourceType::Snapshot(source)),
    })
}

fn from_volume(id: &str) -> Option<VolumeContentSource> {
    let source = VolumeSource {
        volume_id: id.to_owned(),
    };
    Some(VolumeContentSource {
        r#type: Some(SourceType::Volume(source)),
    })
}

fn expand(volume_id: &str, required_bytes: i64, limit_bytes: i64) -> ControllerExpandVolumeRequest {
    ControllerExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..ControllerExpandVolumeRequest::default()
    }
}

async fn delete(service: &Service, volume_id: &str) -> Result<(), tonic::Status> {
    let request = DeleteVolumeRequest {
        volume_id: volume_id.to_owned(),
        ..<_>::default()
    };
    service
        .delete_volume(Request::new(request))
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_volume_is_made_once_and_found_again() {
    let (service, _) = service();
    let first = make(&service, create("v", 10 * MIB + 1, mount("")))
        .await
        .expect("made");
    assert_eq!(first.capacity_bytes, 11 * MIB);
    assert_eq!(first.accessible_topology, [on_node(NODE)]);
    assert_eq!(first.content_source, None);
    let again = make(&service, create("v", 10 * MIB + 1, mount("")))
        .await
        .expect("found");
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_name_that_is_taken_by_another_volume_is_a_conflict() {
    let (service, _) = service();
    make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let elsewhere = CreateVolumeRequest {
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![on_node("edge-2")],
            preferred: vec![],
        }),
        ..create("v", GIB, mount(""))
    };
    for (request, text) in [
        (create("v", 2 * GIB, mount("")), "bytes"),
        (create("v", GIB, block()), "ext4"),
        (create("v", GIB, mount("xfs")), "ext4"),
        (elsewhere, NODE),
    ] {
        let message = assert_code(make(&service, request).await, Code::AlreadyExists);
        assert!(message.contains(text), "{message:?} lacks {text:?}");
    }
}

#[tokio::test]
async fn a_bad_request_reaches_no_backend() {
    let (service, memory) = service();
    assert_code(
        make(&service, create("", GIB, mount(""))).await,
        Code::InvalidArgument,
    );
    assert_code(
        make(&service, create("v", -1, mount(""))).await,
        Code::InvalidArgument,
    );
    assert_code(
        make(&service, create("v", i64::MAX, mount(""))).await,
        Code::OutOfRange,
    );
    assert_code(delete(&service, "").await, Code::InvalidArgument);
    assert_eq!(memory.calls(), 0);
}

#[tokio::test]
async fn a_failure_gets_the_code_of_its_rpc() {
    let (service, memory) = service();
    for (kind, code) in [
        (Kind::NoSpace, Code::ResourceExhausted),
        (Kind::Busy, Code::Aborted),
        (Kind::Uncertain, Code::Unavailable),
        (Kind::Io, Code::Internal),
        (Kind::Corrupt, Code::DataLoss),
    ] {
        memory.fail_next(Failure::new(kind, "what happened"));
        let message = assert_code(make(&service, create("v", GIB, mount(""))).await, code);
        assert_eq!(message, "what happened");
    }
}

#[tokio::test]
async fn a_copy_repeats_its_source() {
    let (service, _) = service();
    let source = make(&service, create("v", GIB, mount("xfs")))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &source.volume_id).await.expect("cut");
    for (name, content) in [
        ("r", from_snapshot(&snapshot.snapshot_id)),
        ("c", from_volume(&source.volume_id)),
    ] {
        let request = CreateVolumeRequest {
            volume_content_source: content.clone(),
            capacity_range: None,
            ..create(name, 0, mount(""))
        };
        let copy = make(&service, request.clone()).await.expect("made");
        assert_eq!(copy.content_source, content);
        assert_eq!(copy.capacity_bytes, GIB);
        assert_eq!(make(&service, request).await.expect("found"), copy);
    }
}

#[tokio::test]
async fn a_source_that_is_missing_is_not_found() {
    let (service, _) = service();
    for content in [
        from_snapshot("fake-snapshot-id"),
        from_volume("../../etc"),
        from_snapshot(&crate::ids::snapshot_id("gone")),
        from_volume(&crate::ids::volume_id("gone")),
    ] {
        let request = CreateVolumeRequest {
            volume_content_source: content,
            ..create("v", GIB, mount(""))
        };
        assert_code(make(&service, request).await, Code::NotFound);
    }
}

#[tokio::test]
async fn a_copy_is_found_again_after_its_source_is_damaged_or_gone() {
    let (service, memory) = service();
    let source = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &source.volume_id).await.expect("cut");
    let content = from_snapshot(&snapshot.snapshot_id);
    let request = CreateVolumeRequest {
        volume_content_source: content,
        ..create("r", GIB, mount(""))
    };
    let copy = make(&service, request.clone()).await.expect("made");
    memory.damage_snapshot(&snapshot.snapshot_id);
    assert_eq!(make(&service, request.clone()).await.expect("found"), copy);
    let another = CreateVolumeRequest {
        name: "another".to_owned(),
        ..request.clone()
    };
    let said = assert_code(make(&service, another).await, Code::DataLoss);
    assert!(said.contains("a bit has flipped"), "{said}");
    memory.remove_snapshot(&snapshot.snapshot_id);
    assert_eq!(make(&service, request.clone()).await.expect("found"), copy);
    // With another size it is the existing volume that does not fit.
    let larger = CreateVolumeRequest {
        capacity_range: Some(CapacityRange {
            required_bytes: 2 * GIB,
            limit_bytes: 0,
        }),
        ..request
    };
    assert_code(make(&service, larger).await, Code::AlreadyExists);
}

#[tokio::test]
async fn a_clone_is_found_again_after_its_source_has_grown() {
    let (service, _) = service();
    let source = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let request = CreateVolumeRequest {
        volume_content_source: from_volume(&source.volume_id),
        capacity_range: Some(CapacityRange {
            required_bytes: GIB,
            limit_bytes: GIB,
        }),
        ..create("c", GIB, mount(""))
    };
    let copy = make(&service, request.clone()).await.expect("made");
    let grown = Request::new(expand(&source.volume_id, 2 * GIB, 0));
    inner(service.controller_expand_volume(grown).await);
    assert_eq!(make(&service, request).await.expect("found"), copy);
}

#[tokio::test]
async fn a_snapshot_that_is_not_ready_is_waited_for() {
    let (service, memory) = service();
    let source = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let snapshot = cut(&service, "s", &source.volume_id).await.expect("cut");
    memory.set_ready(&snapshot.snapshot_id, false);
    let request = CreateVolumeRequest {
        volume_content_source: from_snapshot(&snapshot.snapshot_id),
        ..create("r", GIB, mount(""))
    };
    assert_code(make(&service, request).await, Code::Aborted);
}

#[tokio::test]
async fn deleting_what_is_not_there_succeeds() {
    let (service, memory) = service();
    let volume = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    delete(&service, &volume.volume_id).await.expect("deleted");
    delete(&service, &volume.volume_id).await.expect("gone");
    let before = memory.calls();
    for foreign in ["fake-vol-id", "../../etc/passwd", &"x".repeat(1 << 16)] {
        delete(&service, foreign).await.expect("names nothing");
    }
    assert_eq!(memory.calls(), before);
}

#[tokio::test]
async fn deleting_reports_what_stands_in_the_way() {
    let (service, memory) = service();
    let volume = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    for (kind, code) in [
        (Kind::InUse, Code::FailedPrecondition),
        (Kind::Unavailable, Code::Unavailable),
    ] {
        memory.fail_next(Failure::new(kind, "x"));
        assert_code(delete(&service, &volume.volume_id).await, code);
    }
}

#[tokio::test]
async fn an_expansion_is_exact_and_always_needs_the_node() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    for (required, limit, expected) in [
        (2 * GIB, 0, 2 * GIB),
        (GIB, 0, 2 * GIB),
        (2 * GIB + 1, 0, 2 * GIB + MIB),
    ] {
        let request = Request::new(expand(&volume.volume_id, required, limit));
        let answer = inner(service.controller_expand_volume(request).await);
        assert_eq!(answer.capacity_bytes, expected);
        assert!(answer.node_expansion_required);
    }
    let shrink = Request::new(expand(&volume.volume_id, 0, GIB));
    assert_code(
        service.controller_expand_volume(shrink).await,
        Code::OutOfRange,
    );
}

#[tokio::test]
async fn an_expansion_of_what_does_not_fit_is_refused() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let wrong = ControllerExpandVolumeRequest {
        volume_capability: Some(block()),
        ..expand(&volume.volume_id, 2 * GIB, 0)
    };
    let result = service.controller_expand_volume(Request::new(wrong)).await;
    assert_code(result, Code::InvalidArgument);
    for missing in ["fake-vol-id", &crate::ids::volume_id("gone")] {
        let request = Request::new(expand(missing, 2 * GIB, 0));
        assert_code(
            service.controller_expand_volume(request).await,
            Code::NotFound,
        );
    }
}

#[tokio::test]
async fn validation_confirms_with_what_was_asked_or_says_why_not() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, mount("")))
        .await
        .expect("made");
    let ask = |volume_id: &str, capability| ValidateVolumeCapabilitiesRequest {
        volume_id: volume_id.to_owned(),
        volume_capabilities: vec![capability],
        volume_context: [("k".to_owned(), "v".to_owned())].into(),
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    let good = Request::new(ask(&volume.volume_id, mount("ext4")));
    let confirmed = inner(service.validate_volume_capabilities(good).await)
        .confirmed
        .expect("confirmed");
    assert_eq!(confirmed.volume_capabilities, [mount("ext4")]);
    assert_eq!(confirmed.volume_context.len(), 1);
    let bad = Request::new(ask(&volume.volume_id, block()));
    let answer = inner(service.validate_volume_capabilities(bad).await);
    assert_eq!(
        (answer.confirmed, answer.message.as_str()),
        (None, "the volume is filesystem ext4")
    );
    let missing = Request::new(ask("fake-vol-id", block()));
    assert_code(
        service.validate_volume_capabilities(missing).await,
        Code::NotFound,
    );
}

#[tokio::test]
async fn a_list_is_complete_over_its_pages_also_when_entries_vanish() {
    let (service, memory) = service();
    for name in ["a", "b", "c", "d", "e"] {
        make(&service, create(name, MIB, block()))
            .await
            .expect("made");
    }
    let list = |max_entries, starting_token: &str| {
        let starting_token = starting_token.to_owned();
        Request::new(ListVolumesRequest {
            max_entries,
            starting_token,
        })
    };
    let all = inner(service.list_volumes(list(0, "")).await);
    assert_eq!((all.entries.len(), all.next_token.as_str()), (5, ""));
    let first = inner(service.list_volumes(list(2, "")).await);
    assert_eq!(first.entries.len(), 2);
    let last_of_page = first.entries[1]
        .volume
        .as_ref()
        .expect("volume")
        .volume_id
        .clone();
    memory.remove_volume(&last_of_page);
    let rest = inner(service.list_volumes(list(0, &first.next_token)).await);
    assert_eq!(rest.entries, all.entries[2..]);
    assert_eq!(rest.next_token, "");
    let invalid = service.list_volumes(list(0, "invalid-token")).await;
    assert_code(invalid, Code::Aborted);
    assert_code(
        service.list_volumes(list(-1, "")).await,
        Code::InvalidArgument,
    );
}

#[tokio::test]
async fn capacity_is_told_in_sizes_a_volume_can_have() {
    let (service, memory) = service();
    let request = GetCapacityRequest {
        volume_capabilities: vec![mount("xfs")],
        accessible_topology: Some(on_node(NODE)),
        ..GetCapacityRequest::default()
    };
    let answer = inner(service.get_capacity(Request::new(request)).await);
    assert_eq!(answer.available_capacity, 10 * GIB + 1);
    assert_eq!(answer.maximum_volume_size, Some(10 * GIB));
    assert_eq!(answer.minimum_volume_size, Some(300 * MIB));
    assert_eq!(
        memory.last_query().and_then(|query| query.node).as_deref(),
        Some(NODE)
    );
    let elsewhere = GetCapacityRequest {
        accessible_topology: Some(on_node("edge-2")),
        ..GetCapacityRequest::default()
    };
    let answer = inner(service.get_capacity(Request::new(elsewhere)).await);
    assert_eq!(
        (answer.available_capacity, answer.maximum_volume_size),
        (0, Some(0))
    );
    assert_eq!(answer.minimum_volume_size, Some(MIB));
}

#[tokio::test]
async fn one_volume_is_told_with_where_it_is_published() {
    let (service, _) = service();
    let volume = make(&service, create("v", GIB, block()))
        .await
        .expect("made");
    let get = |volume_id: &str| {
        Request::new(ControllerGetVolumeRequest {
            volume_id: volume_id.to_owned(),
        })
    };
    let answer = inner(service.controller_get_volume(get(&volume.volume_id)).await);
    assert_eq!(answer.volume, Some(volume));
    assert_eq!(answer.status.expect("status").published_node_ids, [NODE]);
    assert_code(
        service.controller_get_volume(get("")).await,
        Code::InvalidArgument,
    );
    assert_code(
        service.controller_get_volume(get("fake")).await,
        Code::NotFound,
    );
    assert_code(
        service.controller_get_volume(get(&"x".repeat(129))).await,
        Code::InvalidArgument,
    );
}

#[tokio::test]
async fn health_lists_the_ill_and_tells_of_the_healthy_when_asked() {
    let (service, _) = service();
    let healthy = make(&service, create("h", GIB, mount("")))
        .await
        .expect("made");
    let ill = make(&service, create("i", GIB, block()))
        .await
        .expect("made");
    let list = Request::new(ControllerListVolumeHealthRequest::default());
    let listed = inner(service.controller_list_volume_health(list).await).entries;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].volume_id, ill.volume_id);
    let problem = &listed[0].health_statuses[0];
    assert_eq!(problem.status(), VolumeHealthErrorType::Degraded);
    assert_eq!(problem.reason, "Fragmented");
    let get = |volume_id: &str| {
        let volume_id = volume_id.to_owned();
        Request::new(ControllerGetVolumeHealthRequest {
            volume_id,
            ..<_>::default()
        })
    };
    let answer = inner(
        service
            .controller_get_volume_health(get(&healthy.volume_id))
            .await,
    );
    let health = answer.volume_health.expect("health");
    assert_eq!(
        (health.volume_id, health.health_statuses.len()),
        (healthy.volume_id, 0)
    );
    assert_code(
        service.controller_get_volume_health(get("")).await,
        Code::InvalidArgument,
    );
    assert_code(
        service.controller_get_volume_health(get("fake")).await,
        Code::NotFound,
    );
}

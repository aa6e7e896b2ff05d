//! The one VolumeSnapshotClass of the driver, made once its kind is installed. The manifest cannot have it: on a cluster without
//! the snapshot definitions it could not be applied.
//!
//! It is made where the driver has no class, and never changed: what a user has made of it, or instead of it, counts.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::StreamExt;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use proto::errors::Failure;
use serde_json::json;

use super::Options;
use crate::kubernetes::objects::{FIELD_MANAGER, within};

/// Keeps it until dropped.
pub(super) async fn keep(client: &Client, options: &Options) {
    if options.snapshot_class.is_empty() {
        return;
    }
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
    let resource = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut events = pin!(watcher(api.clone(), Config::default()).default_backoff());
    let mut ours: BTreeSet<String> = BTreeSet::new();
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                ours.clear();
                complete = false;
            }
            Ok(Event::InitApply(class) | Event::Apply(class)) => {
                if class.data.get("driver").and_then(|name| name.as_str()) == Some(&options.driver)
                {
                    ours.insert(class.name_any());
                }
            }
            Ok(Event::Delete(class)) => {
                ours.remove(&class.name_any());
            }
            Ok(Event::InitDone) => complete = true,
            // Not installed yet: the watch is tried again, ever more seldom.
            Err(_missing) => {}
        }
        if complete && ours.is_empty() {
            match make(&api, &resource, options).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "cannot make the VolumeSnapshotClass"),
            }
        }
    }
}

async fn make(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    options: &Options,
) -> Result<(), Failure> {
    let name = &options.snapshot_class;
    let mut class = DynamicObject::new(name, resource);
    class.metadata.annotations = Some(
        [(
            "snapshot.storage.kubernetes.io/is-default-class".to_owned(),
            "true".to_owned(),
        )]
        .into(),
    );
    class.data = json!({"driver": options.driver, "deletionPolicy": "Delete"});
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let doing = format!("make VolumeSnapshotClass {name}");
    let work = async {
        match api.create(&parameters, &class).await {
            // Another copy was faster, or the name is another driver's.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            answer => answer.map(|_class| true),
        }
    };
    if within(&doing, work).await? {
        tracing::info!(name, "made the VolumeSnapshotClass");
    }
    Ok(())
}

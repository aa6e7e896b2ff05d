//! The one VolumeSnapshotClass of the driver, made once its kind is installed. The manifest cannot have it: on a cluster without
//! the snapshot definitions it could not be applied.
//!
//! It is made where the driver has no class, and never changed: what a user has made of it, or instead of it, counts.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::StreamExt;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use proto::errors::Failure;
use serde_json::json;

use super::{Options, follow};
use crate::kubernetes::objects::{FIELD_MANAGER, within};

/// Keeps it until dropped.
pub(super) async fn keep(client: &Client, options: &Options) {
    if options.snapshot_class.is_empty() {
        // There is none to keep.
        return std::future::pending().await;
    }
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
    let resource = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut events = pin!(follow(
        "VolumeSnapshotClass",
        api.clone(),
        Config::default()
    ));
    let mut ours: BTreeSet<String> = BTreeSet::new();
    // The driver whose class has the name that ours would have.
    let mut taken: Option<String> = None;
    let mut complete = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Init => {
                ours.clear();
                taken = None;
                complete = false;
            }
            Event::InitApply(class) | Event::Apply(class) => match driver_of(&class) {
                Some(driver) if driver == options.driver => {
                    ours.insert(class.name_any());
                }
                driver if class.name_any() == options.snapshot_class => {
                    taken = Some(driver.unwrap_or_default().to_owned());
                }
                _ => continue,
            },
            Event::Delete(class) => {
                ours.remove(&class.name_any());
                taken.take_if(|_| class.name_any() == options.snapshot_class);
            }
            Event::InitDone => complete = true,
        }
        if !complete || !ours.is_empty() {
            continue;
        }
        if let Some(driver) = &taken {
            tracing::warn!(
                name = options.snapshot_class,
                driver,
                "this driver has no VolumeSnapshotClass, and the name of the one it would make is another driver's: make one by hand, \
                 or choose another name with --snapshot-class"
            );
        } else if let Err(error) = make(&api, &resource, options).await {
            tracing::warn!(%error, "cannot make the VolumeSnapshotClass");
        }
    }
}

fn driver_of(class: &DynamicObject) -> Option<&str> {
    class.data.get("driver")?.as_str()
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
            // Another copy was faster.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
            answer => answer.map(|_class| true),
        }
    };
    if within(&doing, work).await? {
        tracing::info!(name, "made the VolumeSnapshotClass");
    }
    Ok(())
}

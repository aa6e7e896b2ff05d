//! What the driver is given with a call: parameters and secrets, as class and content name them.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::act::Sidecar;
use crate::names::{SECRET_NAME, SECRET_NAMESPACE};
use crate::objects::{Meta, VolumeSnapshotClass, VolumeSnapshotContent};
use crate::parameters::{self, SecretReference, Words};
use crate::requests::{self, Failure};

impl Sidecar {
    /// What CreateSnapshot needs.
    pub(super) async fn input(
        &self,
        content: &VolumeSnapshotContent,
        class: Option<&VolumeSnapshotClass>,
    ) -> Result<(HashMap<String, String>, HashMap<String, String>), String> {
        let class = match (&content.spec.volume_snapshot_class_name, class) {
            (_, Some(class)) => class,
            (Some(name), None) => return Err(no_class(name)),
            (None, None) => return Err("the content names no VolumeSnapshotClass".to_owned()),
        };
        if content.ref_uid().is_empty() {
            return Err(
                "the content belongs to no snapshot: spec.volumeSnapshotRef has no uid".to_owned(),
            );
        }
        let secrets = self.annotated_secrets(content).await?;
        let mut parameters = parameters::for_driver(class)?;
        if self.extra_metadata {
            let reference = &content.spec.volume_snapshot_ref;
            let name = reference.name.clone().unwrap_or_default();
            let namespace = reference.namespace.clone().unwrap_or_default();
            let of = Meta::name(content).to_owned();
            parameters.insert("csi.storage.k8s.io/volumesnapshot/name".to_owned(), name);
            parameters.insert(
                "csi.storage.k8s.io/volumesnapshot/namespace".to_owned(),
                namespace,
            );
            parameters.insert(
                "csi.storage.k8s.io/volumesnapshotcontent/name".to_owned(),
                of,
            );
        }
        Ok((parameters, secrets))
    }

    /// What asking after a snapshot needs: the class's secrets, if there is a class.
    pub(super) async fn secrets_to_list(
        &self,
        content: &VolumeSnapshotContent,
        class: Option<&VolumeSnapshotClass>,
    ) -> Result<HashMap<String, String>, String> {
        match (&content.spec.volume_snapshot_class_name, class) {
            (None, _) => Ok(HashMap::new()),
            (Some(name), None) => Err(no_class(name)),
            (Some(_), Some(class)) => {
                let words = Words {
                    content: Meta::name(content),
                    snapshot: None,
                };
                self.secrets(parameters::secret_to_list(class, words)?)
                    .await
            }
        }
    }

    pub(super) async fn annotated_secrets(
        &self,
        content: &VolumeSnapshotContent,
    ) -> Result<HashMap<String, String>, String> {
        let reference = match (
            content.annotation(SECRET_NAME),
            content.annotation(SECRET_NAMESPACE),
        ) {
            (Some(name), Some(namespace)) if !name.is_empty() && !namespace.is_empty() => {
                Some(SecretReference {
                    name: name.to_owned(),
                    namespace: namespace.to_owned(),
                })
            }
            (Some(_), Some(_)) => {
                return Err(format!(
                    "the annotations {SECRET_NAME} and {SECRET_NAMESPACE} must not be empty"
                ));
            }
            _ => None,
        };
        self.secrets(reference).await
    }

    async fn secrets(
        &self,
        reference: Option<SecretReference>,
    ) -> Result<HashMap<String, String>, String> {
        let Some(SecretReference { name, namespace }) = reference else {
            return Ok(HashMap::new());
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let found = requests::read(&api, &name).await;
        let Some(secret) = found.map_err(Failure::message)? else {
            return Err(format!(
                "there is no Secret {namespace}/{name}, which the class asks for"
            ));
        };
        let mut secrets = HashMap::new();
        for (key, value) in secret.data.into_iter().flatten() {
            let Ok(value) = String::from_utf8(value.0) else {
                return Err(format!(
                    "the Secret {namespace}/{name} has a value that is no text: {key}"
                ));
            };
            secrets.insert(key, value);
        }
        Ok(secrets)
    }
}

fn no_class(name: &str) -> String {
    format!("there is no VolumeSnapshotClass {name}; create it")
}

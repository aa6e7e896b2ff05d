//! Whose a volume is.

use api::LocalVolume;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use serde_json::json;

use crate::objects::{keep, merge, object, persistent_volume, until, volumes};
use crate::support::agent::{Agent, MIB};
use crate::support::driver::{driver, for_claim, request};
use crate::support::plane::client;

#[tokio::test]
async fn a_volume_that_is_given_to_another_claim_says_so() {
    let client = client().await;
    let _agent = Agent::start(&client, "given-1", 100 * MIB).await;
    let driver = driver(&client).await;
    let name = "pvc-5b1c7c0e-9d3f-4e53-8a62-0123456789ab";
    let ask = for_claim(request(name, MIB, &["given-1"]), "images", "prime-vm");
    let id = driver.make(ask).await;
    let made = volumes(&client).get(&id).await.unwrap().spec.claim.unwrap();
    assert_eq!(made.uid.as_deref(), name.strip_prefix("pvc-"));
    let persistent: Api<PersistentVolume> = Api::all(client.clone());
    object(&persistent, persistent_volume("given", &id)).await;
    let _keepers = [keep(&client, &driver, ""), keep(&client, &driver, "")];
    // As CDI does it.
    let claim = json!({"namespace": "machines", "name": "vm", "uid": "of-the-vm"});
    merge(&persistent, "given", &json!({"spec": {"claimRef": claim}})).await;
    let is_of_vm = |object: Option<&LocalVolume>| {
        let claim = object.and_then(|object| object.spec.claim.as_ref());
        claim.is_some_and(|claim| {
            (claim.namespace.as_str(), claim.name.as_str()) == ("machines", "vm")
                && claim.uid.as_deref() == Some("of-the-vm")
        })
    };
    until(&volumes(&client), &id, is_of_vm).await.unwrap();
    driver.delete(&id).await.unwrap();
}

//! What the driver says of damage, and what it must leave alone.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tonic::Code;

use crate::client::{Client, accepted, refused};
use crate::fixture::Fixture;
use crate::scratch_fs::MIB;
use crate::{content, csi, requests};

/// `bytes` with one bit of byte `at` turned; which one depends on the place.
#[must_use]
pub fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1 << (at % 8);
    damaged
}

/// The volume as `ControllerGetVolume` answers.
///
/// # Errors
/// The server's status.
pub fn volume(client: &Client, id: &str) -> Result<csi::Volume, tonic::Status> {
    let request = csi::ControllerGetVolumeRequest {
        volume_id: id.to_owned(),
    };
    client
        .controller_get_volume(request)
        .map(|answer| answer.volume.expect("the answer holds a volume"))
}

/// The snapshot as `GetSnapshot` answers.
///
/// # Errors
/// The server's status.
pub fn snapshot(client: &Client, id: &str) -> Result<csi::Snapshot, tonic::Status> {
    let request = csi::GetSnapshotRequest {
        snapshot_id: id.to_owned(),
        ..Default::default()
    };
    client
        .get_snapshot(request)
        .map(|answer| answer.snapshot.expect("the answer holds a snapshot"))
}

/// The reasons that `ControllerGetVolumeHealth` gives for a volume; none for a healthy one.
#[track_caller]
#[must_use]
pub fn reasons(client: &Client, id: &str) -> Vec<String> {
    let request = csi::ControllerGetVolumeHealthRequest {
        volume_id: id.to_owned(),
        ..Default::default()
    };
    let health = accepted(client.controller_get_volume_health(request)).volume_health;
    let entries = health.map(|health| health.health_statuses);
    let reasons = entries.unwrap_or_default().into_iter();
    reasons.map(|entry| entry.reason).collect()
}

/// The volumes that `ControllerListVolumeHealth` names.
#[track_caller]
#[must_use]
pub fn troubled(client: &Client) -> BTreeSet<String> {
    let request = csi::ControllerListVolumeHealthRequest::default();
    let list = accepted(client.controller_list_volume_health(request));
    let ids = list
        .entries
        .into_iter()
        .filter(|one| !one.health_statuses.is_empty());
    ids.map(|one| one.volume_id).collect()
}

/// What `vdctl pool check` has findings about.
#[track_caller]
#[must_use]
pub fn findings(fixture: &Fixture) -> BTreeSet<String> {
    let ran = fixture.vdctl(&["pool", "check", "-o", "json"]);
    assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
    let report: Value = serde_json::from_str(&ran.out).expect("the check prints JSON");
    let found = report["findings"].as_array().expect("a list of findings");
    let about = found.iter().map(|one| one["what"].as_str());
    about.map(|what| what.expect("a text").to_owned()).collect()
}

/// Every operation works on objects that are not damaged.
#[track_caller]
pub fn others_go_on(client: &Client, pool: &Path) {
    let request = requests::volume("other", 4 * MIB, requests::block());
    let other = client.made_volume(request).volume_id;
    let image = pool.join("volumes").join(&other).join("disk.img");
    let bytes = content::pattern("other", 1 << 20);
    content::write_at(&image, MIB, &bytes);
    let cut = client
        .made_snapshot(requests::snapshot("other", &other))
        .snapshot_id;
    let request = requests::volume("other restored", 4 * MIB, requests::block());
    let restored = client
        .made_volume(requests::from_snapshot(request, &cut))
        .volume_id;
    let image = pool.join("volumes").join(&restored).join("disk.img");
    assert!(
        content::read_at(&image, MIB, 1 << 20) == bytes,
        "the restore differs"
    );
    let request = requests::expand(&other, 6 * MIB, requests::block());
    let grown = accepted(client.controller_expand_volume(request));
    assert_eq!(grown.capacity_bytes, requests::signed(6 * MIB));
    accepted(client.delete(&other));
    accepted(client.delete(&restored));
    accepted(client.delete_cut(&cut));
    refused(volume(client, &other), Code::NotFound);
}
